//! What only root can give, as this user finds it: KVM, TAP devices, user namespaces. Each is tried, and
//! what the host is like then tells why it failed. [`crate::prepare`] is the fix of most.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};

use super::{Finding, Severity};
use crate::prepare::{self, Facts, GROUP, Namespaces};

const LOG_IN: &str = "log in again";
const HARDWARE: &str =
    "use a host with hardware virtualization, or turn on nested virtualization for this VM";
const GIVE_KVM: &str = "start the container with --device /dev/kvm";
const GIVE_TUN: &str = "start the container with --device /dev/net/tun";
const POLICY: &str = "a security policy forbids them; in a container it is the runtime's: allow them there";

/// Why something is not there, and what helps.
type Lack = (String, Fix);

/// What helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fix {
    /// [`prepare::linux`].
    Prepare,
    /// [`prepare::user`].
    Join,
    Other(&'static str),
}

impl Fix {
    fn text(self) -> String {
        match self {
            Self::Prepare => prepare::as_root("setup linux"),
            Self::Join => format!("{}, then log in again", prepare::as_root("setup user $USER")),
            Self::Other(text) => text.to_owned(),
        }
    }
}

/// Tries everything.
pub(super) fn findings() -> [Finding; 3] {
    // Before the look: opening it loads the module where the file is there already.
    let (kvm, tun) = (open("/dev/kvm"), open("/dev/net/tun"));
    let facts = Facts::look();
    let user = facts.accounts.name(rustix::process::geteuid().as_raw());
    let namespaces = sys::process::try_namespaces();
    [
        finding("/dev/kvm", "may be used", kvm.map_err(|error| kvm_lack(&error, &facts, user))),
        finding("/dev/net/tun", "may be used", tun.map_err(|error| tun_lack(&error, &facts))),
        finding(
            "user namespaces",
            "can be made",
            namespaces.map_err(|error| {
                let apparmor = facts.apparmor.as_ref().is_some_and(|apparmor| apparmor.restricts_us);
                namespaces_lack(&error, &facts.namespaces, apparmor)
            }),
        ),
    ]
}

fn open(path: &str) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(path).map(drop)
}

fn finding(subject: &'static str, well: &str, tried: Result<(), Lack>) -> Finding {
    match tried {
        Ok(()) => Finding { subject, severity: Severity::Ok, found: well.into(), fix: None },
        Err((found, fix)) => Finding { subject, severity: Severity::Warning, found, fix: Some(fix.text()) },
    }
}

fn kvm_lack(error: &io::Error, facts: &Facts, user: Option<&str>) -> Lack {
    let Some(module) = facts.kvm_module else {
        return ("the CPU has no virtualization extension (vmx or svm)".into(), Fix::Other(HARDWARE));
    };
    if !facts.kvm.driver {
        return (format!("the module {module} is not loaded"), Fix::Prepare);
    }
    if facts.kvm.is_withheld() {
        return ("the kernel has KVM, but this /dev has no file for it".into(), Fix::Other(GIVE_KVM));
    }
    match (error.kind(), facts.kvm.node) {
        (ErrorKind::PermissionDenied, Some(node)) if facts.kvm_opens_to_group(node) => {
            if user.is_some_and(|user| facts.accounts.is_member(user, GROUP)) {
                (format!("you joined the group {GROUP} after you logged in"), Fix::Other(LOG_IN))
            } else {
                (format!("you are not in the group {GROUP}"), Fix::Join)
            }
        }
        (ErrorKind::PermissionDenied, Some(node)) => {
            let found =
                format!("does not let the group {GROUP} in: group {}, mode {:04o}", node.group, node.mode);
            (found, Fix::Prepare)
        }
        _ => (error.to_string(), Fix::Prepare),
    }
}

fn tun_lack(error: &io::Error, facts: &Facts) -> Lack {
    if facts.tun.is_withheld() {
        return (
            "the kernel has TAP devices, but this /dev has no file for them".into(),
            Fix::Other(GIVE_TUN),
        );
    }
    let missing = [rustix::io::Errno::NODEV, rustix::io::Errno::NXIO, rustix::io::Errno::NOENT];
    let missing = missing.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()));
    let found = match error.kind() {
        _ if missing => "the module tun is not loaded".to_owned(),
        ErrorKind::PermissionDenied => "no permission to open it".to_owned(),
        _ => error.to_string(),
    };
    (found, Fix::Prepare)
}

fn namespaces_lack(error: &io::Error, namespaces: &Namespaces, apparmor: bool) -> Lack {
    let parameters = [
        ("user.max_user_namespaces is 0", namespaces.max == Some(0)),
        ("kernel.unprivileged_userns_clone is 0", namespaces.clone == Some(0)),
        ("AppArmor lets only programs with a profile make them", apparmor),
    ];
    match parameters.iter().find(|(_, cause)| *cause) {
        Some((found, _)) => ((*found).to_owned(), Fix::Prepare),
        None => (format!("refused: {error}"), Fix::Other(POLICY)),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::prepare::{Accounts, Device, Node};

    const KVM: u32 = 104;

    fn facts(node: Node) -> Facts {
        Facts {
            kvm_module: Some("kvm_amd"),
            kvm: Device { driver: true, node: Some(node), kept: true, on_demand: true },
            tun: Device { driver: false, node: None, kept: true, on_demand: true },
            modules_at_boot: Vec::new(),
            modules: String::new(),
            rules: String::new(),
            accounts: Accounts {
                passwd: "ada:x:1000:1000::/:\nbob:x:1001:1001::/:\n".into(),
                group: format!("kvm:x:{KVM}:ada\n"),
            },
            namespaces: Namespaces::default(),
            apparmor: None,
            binary: "/usr/bin/matchlock".into(),
        }
    }

    #[test]
    fn kvm_is_closed_for_different_reasons_with_different_fixes() {
        let denied = io::Error::from(Errno::ACCESS);
        let well = facts(Node { group: KVM, mode: 0o660 });
        let fix = |facts: &Facts, user| kvm_lack(&denied, facts, user).1;
        assert_eq!(fix(&well, Some("bob")), Fix::Join);
        assert_eq!(fix(&well, None), Fix::Join, "a user whom nobody knows");
        assert_eq!(fix(&well, Some("ada")), Fix::Other(LOG_IN));
        for node in [Node { group: KVM, mode: 0o600 }, Node { group: 0, mode: 0o660 }] {
            assert_eq!(fix(&facts(node), Some("ada")), Fix::Prepare, "{node:?}");
        }
        let group_gone = Facts { accounts: Accounts::default(), ..well.clone() };
        assert_eq!(fix(&group_gone, Some("ada")), Fix::Prepare);
        let unloaded = Facts { kvm: Device { driver: false, node: None, ..well.kvm }, ..well.clone() };
        let missing = io::Error::from(Errno::NOENT);
        let withheld = Facts { kvm: Device { node: None, ..well.kvm }, ..well.clone() };
        assert_eq!(kvm_lack(&missing, &withheld, Some("ada")).1, Fix::Other(GIVE_KVM));
        assert_eq!(kvm_lack(&missing, &unloaded, Some("ada")).0, "the module kvm_amd is not loaded");
        let old = Facts { kvm_module: None, ..unloaded };
        assert_eq!(kvm_lack(&missing, &old, Some("ada")).1, Fix::Other(HARDWARE));
    }

    #[test]
    fn namespaces_are_refused_for_different_reasons() {
        let full = io::Error::from(Errno::NOSPC);
        let found = |clone, max, apparmor| {
            namespaces_lack(&full, &Namespaces { clone, max, configured: String::new() }, apparmor)
        };
        assert!(found(None, Some(0), false).0.starts_with("user.max_user_namespaces"));
        assert!(found(Some(0), Some(9), false).0.starts_with("kernel.unprivileged_userns_clone"));
        assert!(found(Some(1), Some(9), true).0.starts_with("AppArmor"));
        let (why, fix) = found(Some(1), Some(9), false);
        assert!(why.starts_with("refused: No space left") && fix == Fix::Other(POLICY), "{why}");
    }

    #[test]
    fn tun_without_its_module_is_not_taken_for_a_permission() {
        let unloaded = facts(Node { group: KVM, mode: 0o660 });
        for errno in [Errno::NODEV, Errno::NXIO, Errno::NOENT] {
            assert_eq!(tun_lack(&errno.into(), &unloaded).0, "the module tun is not loaded");
        }
        assert_eq!(tun_lack(&Errno::ACCESS.into(), &unloaded).0, "no permission to open it");
        assert!(tun_lack(&Errno::MFILE.into(), &unloaded).0.starts_with("Too many open files"));
        let withheld = Facts { tun: Device { driver: true, ..unloaded.tun }, ..unloaded };
        assert_eq!(tun_lack(&Errno::NOENT.into(), &withheld).1, Fix::Other(GIVE_TUN));
    }
}
