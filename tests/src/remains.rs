//! What a command left behind although it has ended.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a killed VMM may take to be gone.
const GRACE: Duration = Duration::from_secs(5);

/// Fails if anything is left of sandboxes in `home`, or of unfinished work in `cache`.
pub(crate) fn assert_none(home: &Path, cache: &Path) {
    let patience = Instant::now() + GRACE;
    loop {
        let remains = found(home, cache);
        if remains.is_empty() {
            return;
        }
        assert!(Instant::now() < patience, "left behind:\n  {}", remains.join("\n  "));
        sleep(Duration::from_millis(20));
    }
}

fn found(home: &Path, cache: &Path) -> Vec<String> {
    let mut found = processes(home);
    found.extend(files(&home.join("sandboxes")));
    for unfinished in ["tmp", "images/tmp"] {
        found.extend(files(&cache.join(unfinished)));
    }
    found
}

/// Processes whose command line, environment or open files name `home`, besides this one.
fn processes(home: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pids = names.filter(|name| *name != own && name.bytes().all(|byte| byte.is_ascii_digit()));
    // Another process may end, or be none of ours to look into, at any moment: then it names nothing.
    pids.filter(|pid| names_path(&Path::new("/proc").join(pid), home))
        .map(|pid| format!("process {pid}: {}", command_line(&pid)))
        .collect()
}

fn names_path(process: &Path, home: &Path) -> bool {
    let home = home.as_os_str().as_bytes();
    let contains = |bytes: &[u8]| bytes.windows(home.len()).any(|window| window == home);
    let said =
        ["cmdline", "environ"].iter().any(|file| fs::read(process.join(file)).is_ok_and(|it| contains(&it)));
    let mut open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    said || open
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|file| contains(file.as_os_str().as_bytes())))
}

fn command_line(pid: &str) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// The files of a directory; none if it is missing.
fn files(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().display().to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_known_by_its_words_its_environment_and_its_files() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(processes(home.path()), Vec::<String>::new());
        let marker = home.path().join("file");
        fs::write(&marker, "").unwrap();
        let mut by_words = Command::new("sh");
        by_words.arg("-c").arg("read line").arg(&marker).stdin(Stdio::piped());
        let mut by_environment = Command::new("sleep");
        by_environment.arg("1000").env("MATCHLOCK_HOME", home.path());
        assert_known(home.path(), by_words);
        assert_known(home.path(), by_environment);
        let mut by_files = Command::new("sleep");
        by_files.arg("1000").stdin(fs::File::open(&marker).unwrap());
        assert_known(home.path(), by_files);
    }

    /// Fails unless this command is known, and nobody else. It runs before the kernel has put its words and its
    /// environment where they are read; and a child that another test has just forked has the files that are
    /// open here until it executes its program.
    fn assert_known(home: &Path, mut command: Command) {
        let mut child = command.process_group(0).spawn().unwrap();
        let said = format!("{command:?}");
        drop(command);
        let only = format!("process {}: ", child.id());
        let patience = Instant::now() + GRACE;
        let known = loop {
            let known = processes(home);
            if matches!(&known[..], [one] if one.starts_with(&only)) || Instant::now() > patience {
                break known;
            }
            sleep(Duration::from_millis(1));
        };
        let group = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(matches!(&known[..], [one] if one.starts_with(&only)), "{said}: {known:?}");
    }

    #[test]
    fn sandboxes_and_unfinished_images_are_named() {
        let base = tempfile::tempdir().unwrap();
        let (home, cache) = (base.path().join("home"), base.path().join("cache"));
        assert_eq!(found(&home, &cache), Vec::<String>::new());
        let left = ["home/sandboxes/vm-00000000", "cache/tmp/y", "cache/images/tmp/x"]
            .map(|path| base.path().join(path));
        left.iter().for_each(|path| fs::create_dir_all(path).unwrap());
        assert_eq!(found(&home, &cache), left.map(|path| path.display().to_string()));
    }
}
