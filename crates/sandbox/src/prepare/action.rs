//! One change to the host: as a line for a shell, and carried out, without a shell.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use api::{Explain, Kind};
use thiserror::Error;

/// Where programs are looked for: not where the user's `PATH` says, since they run as root.
const PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Files that we write are for everybody to read.
const MODE: u32 = 0o644;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A program and its arguments.
    Run(Vec<String>),
    /// A file of ours, in a directory that is made if need be.
    Write {
        /// Where.
        path: &'static str,
        /// What is in it then; whole lines.
        text: String,
    },
    /// A parameter of the running kernel.
    Set {
        /// Its name as in `sysctl(8)`.
        parameter: &'static str,
        /// What it becomes.
        value: u64,
    },
}

/// A change that did not succeed.
#[derive(Debug, Error)]
pub enum ActionError {
    /// The program is missing or does not start.
    #[error("cannot run {0}")]
    Start(String, #[source] io::Error),
    /// The program failed.
    #[error("{command} failed: {said}")]
    Failed {
        /// The command.
        command: String,
        /// What it said, or its exit status.
        said: String,
    },
    /// A file, or a parameter, which is a file too.
    #[error("cannot write {path}", path = .0.display())]
    Write(PathBuf, #[source] io::Error),
}

impl Explain for ActionError {
    fn kind(&self) -> Kind {
        Kind::HostUnready
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Failed { command, .. } if command.starts_with("modprobe kvm") => {
                Some("turn virtualization on in the firmware, or nested virtualization for this VM".into())
            }
            Self::Start(..) => Some("install the package that has it, then run this again".into()),
            Self::Failed { .. } | Self::Write(..) => None,
        }
    }
}

impl Action {
    /// As a line for a shell: root's, or that of somebody who has `sudo`.
    #[must_use]
    pub fn line(&self, is_root: bool) -> String {
        let sudo = if is_root { "" } else { "sudo " };
        match self {
            Self::Run(words) => format!("{sudo}{}", command(words)),
            Self::Write { path, text } => {
                let lines: Vec<String> = text.lines().map(quoted).collect();
                format!(
                    r"printf '%s\n' {} | {sudo}install -D -m {MODE:04o} /dev/stdin {path}",
                    lines.join(" ")
                )
            }
            Self::Set { parameter, value } => format!("{sudo}sysctl -w {parameter}={value}"),
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// See [`ActionError`].
    pub fn carry_out(&self) -> Result<(), ActionError> {
        match self {
            Self::Run(words) => start(words),
            Self::Write { path, text } => write(Path::new(path), text),
            // As sysctl does it, which not every host has.
            Self::Set { parameter, value } => {
                let path = Path::new("/proc/sys").join(parameter.replace('.', "/"));
                fs::write(&path, format!("{value}\n")).map_err(|error| ActionError::Write(path, error))
            }
        }
    }
}

fn start(words: &[String]) -> Result<(), ActionError> {
    let (program, arguments) = words.split_first().expect("a command has a program");
    let mut child = Command::new(program);
    child.args(arguments).env_clear().env("PATH", PROGRAMS).stdin(Stdio::null());
    let output = child.output().map_err(|error| ActionError::Start(program.clone(), error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let said = if said.is_empty() { output.status.to_string() } else { said };
    Err(ActionError::Failed { command: command(words), said })
}

fn write(path: &Path, text: &str) -> Result<(), ActionError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let written = fs::create_dir_all(directory)
        .and_then(|()| fs::write(path, text))
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(MODE)));
    written.map_err(|error| ActionError::Write(path.to_owned(), error))
}

fn command(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it for one.
pub(super) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+=:,./@%".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> Action {
        Action::Run(words.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_shell_reads_lines_as_they_are_meant() {
        for words in [&["printf", "%s|", "a b", "it's", "$HOME", "", "`id`", "x;y", "*", "é"][..], &["echo"]]
        {
            let line = run(words).line(true);
            let shell = Command::new("sh").args(["-c", &line]).output().unwrap();
            let direct = Command::new(words[0]).args(&words[1..]).output().unwrap();
            assert_eq!(shell.stdout, direct.stdout, "{line}");
        }
        assert_eq!(run(&["chmod", "0666", "/dev/net/tun"]).line(false), "sudo chmod 0666 /dev/net/tun");
    }

    #[test]
    fn a_file_that_a_shell_writes_is_the_one_that_we_write() {
        let directory = tempfile::tempdir().unwrap();
        let text = "# Written by `us`.\n\nKERNEL==\"kvm\", MODE=\"0660\"\n";
        let line = Action::Write { path: "PLACE", text: text.into() }.line(true);
        let place = directory.path().join("new/by-shell");
        let line = line.replace("PLACE", place.to_str().unwrap());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
        let ours = directory.path().join("other/by-us");
        write(&ours, text).unwrap();
        for path in [&place, &ours] {
            assert_eq!(fs::read_to_string(path).unwrap(), text);
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, MODE);
        }
        let set = Action::Set { parameter: "user.max_user_namespaces", value: 7 };
        assert_eq!(set.line(false), "sudo sysctl -w user.max_user_namespaces=7");
    }

    #[test]
    fn failures_tell_what_the_program_said() {
        let missing = run(&["no-such-program"]).carry_out().unwrap_err();
        assert!(matches!(missing, ActionError::Start(..)) && missing.hint().is_some());
        let failed = run(&["ls", "/no such file"]).carry_out().unwrap_err().to_string();
        assert!(
            failed.starts_with("ls '/no such file' failed: ls: ") && failed.contains("No such file"),
            "{failed}"
        );
        assert!(run(&["false"]).carry_out().unwrap_err().to_string().contains("exit status: 1"));
        run(&["true"]).carry_out().unwrap();
    }
}
