//! The initramfs: a cpio archive in the "newc" format, made of our guest binary and the two things
//! the kernel wants before that binary has mounted anything.
//!
//! Format: `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux.

/// The archive with `init` as its `/init`, and an empty `/dev` with a console in it, so that the
/// program has a standard input and output from its first instruction on.
#[must_use]
pub fn with_init(init: &[u8]) -> Vec<u8> {
    let mut archive = Archive { bytes: Vec::with_capacity(init.len() + 1024), entries: 0 };
    archive.add("dev", DIRECTORY | 0o755, (0, 0), &[]);
    archive.add("dev/console", CHARACTER_DEVICE | 0o600, CONSOLE, &[]);
    archive.add("init", REGULAR_FILE | 0o755, (0, 0), init);
    archive.add("TRAILER!!!", 0, (0, 0), &[]);
    archive.bytes
}

const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR_FILE: u32 = 0o100_000;

/// Major and minor number of `/dev/console`.
const CONSOLE: (u32, u32) = (5, 1);

struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        let length = u32::try_from(content.len()).expect("a guest binary is smaller than 4 GiB");
        let name_length = u32::try_from(name.len() + 1).expect("names are short");
        // Inode, mode, owner, group, links, time, length, device, device of the node, name length,
        // checksum: none in this format. Everything but the content is constant, and so is the
        // archive for one binary.
        let fields = [self.entries, mode, 0, 0, links, 0, length, 0, 0, major, minor, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// Runs GNU cpio on the archive.
    fn cpio(arguments: &[&str], archive: &[u8]) -> String {
        let mut child = Command::new("cpio")
            .args(arguments)
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("GNU cpio is needed for this test: apt install cpio");
        child.stdin.take().unwrap().write_all(archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn gnu_cpio_reads_what_we_write() {
        for length in 0..9 {
            let init: Vec<u8> = (0..length).map(|byte| b'a' + byte).collect();
            let archive = with_init(&init);
            let listing = cpio(&["-itv", "--quiet", "--numeric-uid-gid"], &archive);
            let lines: Vec<Vec<&str>> =
                listing.lines().map(|line| line.split_whitespace().collect()).collect();
            assert_eq!(lines.len(), 3, "{listing}");
            assert_eq!((lines[0][0], lines[0].last()), ("drwxr-xr-x", Some(&"dev")));
            assert_eq!((lines[1][0], lines[1][4], lines[1][5]), ("crw-------", "5,", "1"));
            assert_eq!(lines[1].last(), Some(&"dev/console"));
            assert_eq!((lines[2][0], lines[2][2], lines[2][3]), ("-rwxr-xr-x", "0", "0"));
            assert_eq!(lines[2].last(), Some(&"init"));
            assert_eq!(cpio(&["-i", "--quiet", "--to-stdout", "init"], &archive).as_bytes(), init);
        }
    }
}
