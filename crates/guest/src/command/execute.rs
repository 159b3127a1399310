//! Finding the program and becoming it, with the errors that shells tell apart.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use proto::agent::StartError;
use rustix::io::Errno;

use super::environment::Environment;
use super::words;

/// Becomes the program `argv[0]`, searched in the environment's `PATH` unless it has a slash. Returns
/// only if that failed.
pub(super) fn execute(argv: &[Vec<u8>], environment: &Environment) -> StartError {
    let Some(name) = argv.first() else { return StartError::Internal("no program is named".to_owned()) };
    let nul = |_| StartError::Internal("an argument or variable contains a NUL byte".to_owned());
    let arguments: Result<Vec<_>, _> = argv.iter().map(|argument| CString::new(&argument[..])).collect();
    let (arguments, variables) = match (arguments, environment.strings()) {
        (Ok(arguments), Ok(variables)) => (arguments, variables),
        (Err(error), _) | (_, Err(error)) => return nul(error),
    };
    let mut failure = Failure::NotFound;
    for program in candidates(name, environment.path()) {
        let Ok(program) = CString::new(program) else { continue };
        let error = sys::exec::execve(&program, &arguments, &variables);
        failure = failure.or_worse(&error, program.as_bytes());
        if matches!(failure, Failure::Final(_)) {
            break;
        }
    }
    failure.explain(name)
}

/// Where the program may be, in order.
fn candidates(name: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    let directories = path.split(|byte| *byte == b':');
    directories
        .map(|directory| match directory {
            // The working directory, as POSIX has it.
            b"" => [b"./", name].concat(),
            directory => [directory, b"/", name].concat(),
        })
        .collect()
}

/// What trying the candidates has come to.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// None was there.
    NotFound,
    /// One was there, but not executable; another may be.
    Denied(String),
    /// One was there, but what it needs to run is not.
    NoInterpreter,
    /// One was there and cannot be run.
    Final(String),
}

impl Failure {
    fn or_worse(self, error: &io::Error, program: &[u8]) -> Self {
        let there = fs::symlink_metadata(OsStr::from_bytes(program)).is_ok();
        match Errno::from_io_error(error) {
            Some(Errno::NOENT) if there => Self::NoInterpreter,
            Some(Errno::NOENT | Errno::NOTDIR) => self,
            Some(Errno::ACCESS) if self == Self::NotFound => {
                let directory = fs::metadata(OsStr::from_bytes(program)).is_ok_and(|it| it.is_dir());
                Self::Denied(if directory { "is a directory".to_owned() } else { words(error) })
            }
            Some(Errno::ACCESS) => self,
            _ => Self::Final(words(error)),
        }
    }

    fn explain(self, name: &[u8]) -> StartError {
        let shown = &name[..name.len().min(MAX_SHOWN)];
        let program = String::from_utf8_lossy(shown).into_owned();
        let not_found =
            |reason: &str| StartError::NotFound { program: program.clone(), reason: reason.to_owned() };
        match self {
            Self::NotFound => not_found("command not found"),
            Self::NoInterpreter => not_found("its interpreter or dynamic loader is not in the image"),
            Self::Denied(reason) | Self::Final(reason) => StartError::NotExecutable { program, reason },
        }
    }
}

/// As much of a program's name as is repeated in an error, bytes.
const MAX_SHOWN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(name: &str, path: &str) -> Vec<String> {
        let candidates = candidates(name.as_bytes(), path.as_bytes());
        candidates.into_iter().map(|candidate| String::from_utf8(candidate).unwrap()).collect()
    }

    fn failed(program: &str) -> StartError {
        execute(&[program.into()], &Environment::new(&[], b"/", b"", false))
    }

    #[test]
    fn programs_are_searched_as_posix_says() {
        assert_eq!(strings("ls", "/a:/b"), ["/a/ls", "/b/ls"]);
        assert_eq!(strings("ls", ":/b:"), ["./ls", "/b/ls", "./ls"]);
        assert_eq!(strings("./ls", "/a"), ["./ls"]);
        assert!(strings("", "/a").is_empty());
    }

    #[test]
    fn the_ways_to_fail_are_told_apart() {
        assert!(
            matches!(failed("no-such-program"), StartError::NotFound { reason, .. } if reason == "command not found")
        );
        assert!(matches!(failed(""), StartError::NotFound { .. }));
        assert!(
            matches!(failed("/etc"), StartError::NotExecutable { reason, .. } if reason == "is a directory")
        );
        assert!(
            matches!(failed("/etc/passwd"), StartError::NotExecutable { reason, .. } if reason == "Permission denied")
        );
        assert!(matches!(failed("a\0b"), StartError::Internal(_)));

        let script = std::env::temp_dir().join(format!("matchlock-script-{}", std::process::id()));
        // Written by nobody that another test's child could inherit it from: it is executed.
        let written = std::process::Command::new("sh")
            .args(["-c", r#"echo '#!/no/such/interpreter' >"$0" && chmod 755 "$0""#])
            .arg(&script)
            .status();
        assert!(written.unwrap().success());
        let error = failed(script.to_str().unwrap());
        assert!(matches!(error, StartError::NotFound { reason, .. } if reason.contains("interpreter")));
        fs::remove_file(script).unwrap();
    }
}
