//! Users and groups of this machine: `passwd(5)` and `group(5)`. Those of a directory service are not
//! here, and `usermod` does not change them either.

use std::fs;

/// Both files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// `/etc/passwd`.
    pub passwd: String,
    /// `/etc/group`.
    pub group: String,
}

impl Accounts {
    /// Reads them; one that cannot be read has nobody in it.
    #[must_use]
    pub fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    /// Whether there is a user of this name.
    #[must_use]
    pub fn has_user(&self, name: &str) -> bool {
        entry(&self.passwd, 0, name).is_some()
    }

    /// The name of the user with this number.
    #[must_use]
    pub fn name(&self, user: u32) -> Option<&str> {
        entry(&self.passwd, 2, &user.to_string())?.first().copied()
    }

    /// The number of the group of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<u32> {
        number(&entry(&self.group, 0, name)?)
    }

    /// Whether a user is in a group, by either file.
    #[must_use]
    pub fn is_member(&self, user: &str, group: &str) -> bool {
        let Some(group) = entry(&self.group, 0, group) else { return false };
        let listed = group.get(3).is_some_and(|members| members.split(',').any(|member| member == user));
        let primary = entry(&self.passwd, 0, user).and_then(|user| user.get(3)?.parse().ok());
        listed || (primary.is_some() && primary == number(&group))
    }
}

/// The fields of the first line whose field `index` is `value`.
fn entry<'a>(text: &'a str, index: usize, value: &str) -> Option<Vec<&'a str>> {
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(index) == Some(&value))
}

/// The number of an entry, in either file.
fn number(fields: &[&str]) -> Option<u32> {
    fields.get(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_those_listed_and_those_whose_own_group_it_is() {
        let accounts = Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/:/bin/sh\nbob:x:1001:104::/:\nada2:x:1002:1002::/:\nbad\n".into(),
            group: "root:x:0:\nkvm:x:104:ada,eve\nempty:x:105\n".into(),
        };
        assert!(accounts.is_member("ada", "kvm"));
        assert!(accounts.is_member("bob", "kvm"));
        for stranger in ["ada2", "root", "ad", "", "nobody"] {
            assert!(!accounts.is_member(stranger, "kvm"), "{stranger}");
        }
        assert!(!accounts.is_member("ada", "empty") && !accounts.is_member("ada", "none"));
        assert_eq!((accounts.group("kvm"), accounts.group("kv")), (Some(104), None));
        assert_eq!((accounts.name(1001), accounts.name(104)), (Some("bob"), None));
        assert!(accounts.has_user("bad") && !accounts.has_user("x"));
    }
}
