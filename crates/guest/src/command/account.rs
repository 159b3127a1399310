//! Who a command runs as: `user`, `uid`, `user:group`, `uid:gid`, looked up in the image's own
//! `/etc/passwd` and `/etc/group` (`passwd(5)`, `group(5)`) with Docker's rules.
//!
//! * A number is always an ID, and need not be in the files.
//! * A user that is in `/etc/passwd` has the group and home directory from there, and unless a group
//!   is given, the supplementary groups from `/etc/group`.
//! * Anybody else has group 0 and the home directory `/`.
//!
//! The files come from a hostile image: lines that make no sense are passed over.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

/// Who a command runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// User ID.
    pub(super) uid: u32,
    /// Group ID.
    pub(super) gid: u32,
    /// Supplementary groups.
    pub(super) groups: Vec<u32>,
    /// Home directory.
    pub(super) home: Vec<u8>,
}

/// Neither in the files nor a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unknown;

impl Account {
    /// The account that `spec` names in the root this process is in; `None` is root.
    pub(super) fn find(spec: Option<&str>) -> Result<Self, Unknown> {
        Self::resolve(spec.unwrap_or(""), &read("/etc/passwd"), &read("/etc/group"))
    }

    fn resolve(spec: &str, passwd: &[u8], group: &[u8]) -> Result<Self, Unknown> {
        let (user, explicit_group) = spec.split_once(':').unwrap_or((spec, ""));
        let wanted = if user.is_empty() { Some(0) } else { number(user.as_bytes()) };
        let known = lines(passwd).filter_map(User::parse).find(|entry| match wanted {
            Some(uid) => entry.uid == uid,
            None => entry.name == user.as_bytes(),
        });
        let mut account = match (&known, wanted) {
            (Some(entry), _) => {
                Self { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home.to_vec() }
            }
            (None, Some(uid)) => Self { uid, gid: 0, groups: Vec::new(), home: Vec::new() },
            (None, None) => return Err(Unknown),
        };
        let mut groups = lines(group).filter_map(Group::parse);
        if !explicit_group.is_empty() {
            let known = groups.find(|entry| entry.name == explicit_group.as_bytes());
            let gid = number(explicit_group.as_bytes()).or_else(|| known.map(|entry| entry.gid));
            account.gid = gid.ok_or(Unknown)?;
        } else if let Some(user) = known {
            let member =
                groups.filter(|entry| entry.members.split(|b| *b == b',').any(|name| name == user.name));
            account.groups = member.map(|entry| entry.gid).take(MAX_GROUPS).collect();
        }
        if account.home.is_empty() {
            account.home = b"/".to_vec();
        }
        Ok(account)
    }
}

/// As many supplementary groups as the kernel takes (`NGROUPS_MAX`).
const MAX_GROUPS: usize = 65_536;

/// More than this of a file is not read: a real one with ten thousand users is under 1 MiB.
const MAX_FILE: u64 = 4 * 1024 * 1024;

struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

impl<'a> User<'a> {
    /// `name:password:uid:gid:comment:home:shell`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(1).unwrap_or_default();
        Some(Self { name, uid: number(uid)?, gid: number(gid)?, home })
    }
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl<'a> Group<'a> {
    /// `name:password:gid:member,member`
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { name, gid: number(gid)?, members: fields.next().unwrap_or_default() })
    }
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii)
}

/// A user or group ID. The highest number means "no change" to the kernel and is none.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|id| *id != u32::MAX)
}

/// The file's contents, or nothing: a pipe or device in its place must not make us wait.
fn read(path: &str) -> Vec<u8> {
    let mut contents = Vec::new();
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    if let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(path)
        && file.metadata().is_ok_and(|metadata| metadata.is_file())
        && file.take(MAX_FILE).read_to_end(&mut contents).is_err()
    {
        contents.clear();
    }
    contents
}

#[cfg(test)]
mod tests;
