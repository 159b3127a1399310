//! What there is on this host. Looking needs no root and changes nothing; what cannot be read is not
//! there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Accounts, GROUP, MODULES, PROFILE, SYSCTL, UDEV};

/// Where `udev(7)` reads rules: of files of one name, the first counts.
const RULES: [&str; 4] =
    ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d"];

/// Where it is listed which modules are loaded at boot: `modules-load.d(5)`.
const LISTS: [&str; 4] = [
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
];

/// All that a preparation depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The module that makes KVM of the CPU's virtualization, if it has any.
    pub kvm_module: Option<&'static str>,
    /// `/dev/kvm`.
    pub kvm: Device,
    /// `/dev/net/tun`.
    pub tun: Device,
    /// Modules that are built in, or listed to be loaded at boot.
    pub modules_at_boot: Vec<String>,
    /// Our own list of modules to be loaded at boot.
    pub modules: String,
    /// Our own file of rules for `udev(7)`.
    pub rules: String,
    /// Users and groups.
    pub accounts: Accounts,
    /// Parameters of user namespaces.
    pub namespaces: Namespaces,
    /// Where `AppArmor` restricts user namespaces.
    pub apparmor: Option<AppArmor>,
    /// The program that makes sandboxes: this one.
    pub binary: PathBuf,
}

/// A device and its driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The kernel has its driver.
    pub driver: bool,
    /// The file.
    pub node: Option<Node>,
    /// A rule makes the file what it should be after a reboot.
    pub kept: bool,
    /// A rule makes it before its driver is there, which whoever opens it loads.
    pub on_demand: bool,
}

impl Device {
    /// Whether the kernel has it and this `/dev` does not: that of a container which was not given it.
    #[must_use]
    pub fn is_withheld(&self) -> bool {
        self.driver && self.node.is_none()
    }
}

/// A device's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Its group.
    pub group: u32,
    /// Who may do what.
    pub mode: u32,
}

/// Parameters of user namespaces; `None` where the kernel has no such parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// `kernel.unprivileged_userns_clone`, of older kernels of Debian.
    pub clone: Option<u64>,
    /// `user.max_user_namespaces`.
    pub max: Option<u64>,
    /// Our own file for `sysctl.d(5)`.
    pub configured: String,
}

/// `AppArmor`, where it restricts user namespaces (`kernel.apparmor_restrict_unprivileged_userns`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppArmor {
    /// Our profile's file.
    pub profile: Option<String>,
    /// Whether the kernel has our profile; only root can see that.
    pub loaded: Option<bool>,
    /// This process has no profile, and such are what is restricted. In a container there is one.
    pub restricts_us: bool,
}

impl Node {
    fn at(path: &str) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { group: metadata.gid(), mode: metadata.mode() & 0o777 })
    }

    /// Whether everybody may read and write it.
    #[must_use]
    pub fn open_to_all(self) -> bool {
        self.mode & 0o006 == 0o006
    }
}

impl Facts {
    /// Looks.
    #[must_use]
    pub fn look() -> Self {
        let drivers = read("/proc/misc");
        let driver = |name: &str| drivers.lines().any(|line| line.split_whitespace().nth(1) == Some(name));
        let rules = all(&RULES, "rules");
        let device = |name: &str, path: &str, suffices: fn(Rule) -> bool| {
            let rule = granted(&rules, name);
            Device {
                driver: driver(name),
                node: Node::at(path),
                kept: rule.is_some_and(suffices),
                on_demand: rule.is_some_and(|rule| rule.is_static),
            }
        };
        Self {
            kvm_module: sys::kvm::module(),
            kvm: device("kvm", "/dev/kvm", |rule| rule.to_group || rule.to_all),
            tun: device("tun", "/dev/net/tun", |rule| rule.to_all),
            modules_at_boot: modules_at_boot(&(all(&LISTS, "conf") + &read("/etc/modules")), &builtin()),
            modules: read(MODULES),
            rules: read(UDEV),
            accounts: Accounts::read(),
            namespaces: Namespaces {
                clone: parameter("kernel/unprivileged_userns_clone"),
                max: parameter("user/max_user_namespaces"),
                configured: read(SYSCTL),
            },
            apparmor: (parameter("kernel/apparmor_restrict_unprivileged_userns") == Some(1)).then(|| {
                AppArmor {
                    profile: fs::read_to_string(PROFILE).ok(),
                    loaded: fs::read_to_string("/sys/kernel/security/apparmor/profiles")
                        .ok()
                        .map(|loaded| loaded.lines().any(|line| line.starts_with("matchlock ("))),
                    restricts_us: read("/proc/self/attr/current").trim_end() == "unconfined",
                }
            }),
            binary: std::env::current_exe().unwrap_or_default(),
        }
    }

    /// Whether the members of [`GROUP`] may use KVM by this file.
    #[must_use]
    pub fn kvm_opens_to_group(&self, node: Node) -> bool {
        let group = self.accounts.group(GROUP) == Some(node.group);
        node.open_to_all() || (group && node.mode & 0o060 == 0o060)
    }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn parameter(path: &str) -> Option<u64> {
    read(Path::new("/proc/sys").join(path)).trim().parse().ok()
}

/// All configuration of one kind, in the order in which it applies.
fn all(directories: &[&str], extension: &str) -> String {
    let mut files = BTreeMap::new();
    for file in directories.iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten() {
        let path = file.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.entry(file.file_name()).or_insert(path);
        }
    }
    files.values().map(|path| read(path) + "\n").collect()
}

/// Modules that are part of the kernel.
fn builtin() -> String {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    read(Path::new("/lib/modules").join(release).join("modules.builtin"))
}

fn modules_at_boot(lists: &str, builtin: &str) -> Vec<String> {
    let listed = lists.lines().filter_map(|line| line.split_whitespace().next());
    let listed = listed.filter(|word| !word.starts_with(['#', ';']));
    let builtin = builtin.lines().filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"));
    listed.chain(builtin).map(|name| name.replace('-', "_")).collect()
}

/// Whom udev lets read and write a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    to_group: bool,
    to_all: bool,
    /// Its file is there before its driver is.
    is_static: bool,
}

/// What the rules say about a device, if anything: the last word counts.
fn granted(rules: &str, device: &str) -> Option<Rule> {
    let matched = format!("KERNEL==\"{device}\"");
    let (mut group, mut mode, mut is_static) = (None, None, false);
    for line in rules.lines().map(str::trim_start) {
        if line.starts_with('#') || !line.contains(&matched) {
            continue;
        }
        for field in line.split(',') {
            let mut pieces = field.split('"');
            let (key, value) = (pieces.next().unwrap_or_default().trim(), pieces.next());
            match (key, value) {
                ("GROUP=" | "GROUP:=", Some(value)) => group = Some(value),
                ("MODE=" | "MODE:=", Some(value)) => mode = u32::from_str_radix(value, 8).ok(),
                ("OPTIONS+=" | "OPTIONS=", Some(value)) => is_static |= value.starts_with("static_node="),
                _ => {}
            }
        }
    }
    // A group alone gives it the mode 0660 (udev(7)).
    let mode = mode.or(group.map(|_| 0o660))?;
    let to_group = group == Some(GROUP) && mode & 0o060 == 0o060;
    Some(Rule { to_group, to_all: mode & 0o006 == 0o006, is_static })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_distributions_are_understood() {
        let debian = "KERNEL==\"tun\", MODE=\"0666\", OPTIONS+=\"static_node=net/tun\"\n\
                      # KERNEL==\"kvm\", MODE=\"0600\"\n\
                      KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\", OPTIONS+=\"static_node=kvm\"\n";
        let rule = |rules: &str, device| granted(rules, device).map(|rule| (rule.to_group, rule.to_all));
        assert_eq!(rule(debian, "kvm"), Some((true, false)));
        assert_eq!(rule(debian, "tun"), Some((false, true)));
        assert_eq!(rule(debian, "vhost-vsock"), None);
        assert_eq!(rule("KERNEL==\"kvm\", GROUP=\"kvm\"", "kvm"), Some((true, false)));
        assert_eq!(rule("KERNEL==\"kvm\", GROUP=\"qemu\", MODE=\"0666\"", "kvm"), Some((false, true)));
        let overruled = format!("{debian}KERNEL==\"kvm\", MODE:=\"0600\"\n");
        assert_eq!(rule(&overruled, "kvm"), Some((false, false)));
        assert_eq!(rule("KERNEL==\"kvm\", MODE=\"rw\"", "kvm"), None);
        assert!(granted(debian, "tun").unwrap().is_static);
        assert!(!granted("KERNEL==\"tun\", MODE=\"0666\"", "tun").unwrap().is_static);
    }

    #[test]
    fn modules_are_found_in_lists_and_in_the_kernel() {
        let found = modules_at_boot("# tun\n; x\ntun  \n\nvhost-vsock\n", "kernel/drivers/net/tap.ko\nx\n");
        assert_eq!(found, ["tun", "vhost_vsock", "tap"]);
    }

    #[test]
    fn of_files_with_one_name_the_first_counts_and_names_give_the_order() {
        let base = tempfile::tempdir().unwrap();
        let (etc, usr) = (base.path().join("etc"), base.path().join("usr"));
        for (directory, name, text) in [
            (&etc, "50-b.rules", "admin"),
            (&usr, "50-b.rules", "no"),
            (&usr, "40-a.rules", "early"),
            (&usr, "README", "no"),
        ] {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join(name), text).unwrap();
        }
        let directories = [etc.to_str().unwrap(), "/no/such/directory", usr.to_str().unwrap()];
        assert_eq!(all(&directories, "rules"), "early\nadmin\n");
    }

    #[test]
    fn looking_needs_no_root_and_always_finds_something() {
        assert!(Facts::look().binary.is_absolute());
    }
}
