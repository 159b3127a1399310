//! What only root can give sandboxes of ordinary users on this host: from what was seen ([`Facts`]) to
//! steps, each with the commands that carry it out. QEMU with emulation works without any of them.

mod accounts;
mod action;
mod facts;

use std::path::Path;

use api::{Explain, Kind};
use thiserror::Error;

pub use accounts::Accounts;
pub use action::{Action, ActionError};
pub use facts::{AppArmor, Device, Facts, Namespaces, Node};

/// Whose members may use KVM.
pub const GROUP: &str = "kvm";

/// `user.max_user_namespaces` where it is 0: as much as the guides for rootless containers say.
const USER_NAMESPACES: u64 = 28_633;

const CLONE: &str = "kernel.unprivileged_userns_clone";
const MAX: &str = "user.max_user_namespaces";

const SYSCTL: &str = "/etc/sysctl.d/60-matchlock.conf";
const MODULES: &str = "/etc/modules-load.d/matchlock.conf";
const UDEV: &str = "/etc/udev/rules.d/65-matchlock.rules";
const PROFILE: &str = "/etc/apparmor.d/matchlock";

/// First line of every file that is written.
const HEADER: &str = "# Written by `matchlock setup linux`.\n";

/// One thing that the host needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub name: String,
    /// Whether it is there.
    pub check: Check,
}

/// How a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// It is there.
    Ok,
    /// It cannot be had, or is of no use here, and why.
    Skipped(&'static str),
    /// What has to be done for it.
    Missing(Vec<Action>),
}

/// Why nothing can be prepared.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PrepareError {
    /// No such user.
    #[error("there is no user {0:?} in /etc/passwd")]
    NoUser(String),
    /// [`GROUP`] is not there yet.
    #[error("there is no group {GROUP}")]
    NoGroup,
    /// Everything was done, and it did not help.
    #[error("{0}: still missing after all its commands succeeded")]
    NoEffect(String),
}

impl Explain for PrepareError {
    fn kind(&self) -> Kind {
        match self {
            Self::NoUser(_) => Kind::NotFound,
            Self::NoGroup | Self::NoEffect(_) => Kind::HostUnready,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoGroup => Some(format!("prepare the machine first: {}", as_root("setup linux"))),
            Self::NoUser(_) | Self::NoEffect(_) => None,
        }
    }
}

/// The command line, for a shell, by which this very program does something as root.
#[must_use]
pub fn as_root(arguments: &str) -> String {
    // `sudo` looks for programs in its own places only (`secure_path`).
    const PLACES: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];
    let program = std::env::current_exe().unwrap_or_default();
    match program.parent().and_then(Path::to_str) {
        Some(folder) if !folder.is_empty() && !PLACES.contains(&folder) => {
            format!("sudo {} {arguments}", action::quoted(&program.to_string_lossy()))
        }
        _ => format!("sudo matchlock {arguments}"),
    }
}

/// What this machine needs, in the order in which it can be done. What may fail for want of hardware
/// comes last.
#[must_use]
pub fn linux(facts: &Facts) -> Vec<Step> {
    let mut steps = vec![group(facts), namespaces(&facts.namespaces)];
    steps.extend(facts.apparmor.as_ref().map(|apparmor| profile(apparmor, &facts.binary)));
    steps.push(module("tun", facts.tun.driver));
    steps.push(tun_device(facts.tun));
    steps.push(modules_at_boot(facts));
    steps.push(devices_at_boot(facts));
    match facts.kvm_module {
        Some(name) => {
            steps.push(module(name, facts.kvm.driver));
            steps.push(kvm_device(facts));
        }
        None => {
            let reason = "the CPU has no virtualization (vmx or svm), or hides it from this VM";
            steps.push(step("/dev/kvm", Check::Skipped(reason)));
        }
    }
    steps
}

/// What a user needs.
///
/// # Errors
/// [`PrepareError::NoUser`], [`PrepareError::NoGroup`].
pub fn user(facts: &Facts, name: &str) -> Result<Step, PrepareError> {
    let accounts = &facts.accounts;
    if !accounts.has_user(name) {
        return Err(PrepareError::NoUser(name.to_owned()));
    }
    let title = format!("{name} in the group {GROUP}");
    if facts.kvm.node.is_some_and(Node::open_to_all) {
        return Ok(step(&title, Check::Skipped("/dev/kvm is open to everybody here")));
    }
    if accounts.group(GROUP).is_none() {
        return Err(PrepareError::NoGroup);
    }
    let check = unless(accounts.is_member(name, GROUP), || vec![run(&["usermod", "-aG", GROUP, name])]);
    Ok(step(&title, check))
}

fn step(name: &str, check: Check) -> Step {
    Step { name: name.to_owned(), check }
}

fn unless(ok: bool, actions: impl FnOnce() -> Vec<Action>) -> Check {
    if ok { Check::Ok } else { Check::Missing(actions()) }
}

fn missing(actions: Vec<Action>) -> Check {
    if actions.is_empty() { Check::Ok } else { Check::Missing(actions) }
}

fn run(words: &[&str]) -> Action {
    Action::Run(words.iter().map(ToString::to_string).collect())
}

fn write(path: &'static str, text: &str) -> Action {
    Action::Write { path, text: format!("{HEADER}{text}") }
}

fn group(facts: &Facts) -> Step {
    let check = unless(facts.accounts.group(GROUP).is_some(), || vec![run(&["groupadd", "--system", GROUP])]);
    step("group kvm", check)
}

/// A line of a file of ours.
struct Line {
    text: String,
    /// It has to be there, and is not.
    missing: bool,
    /// It stands in our file already, where it stays.
    stands: bool,
}

/// Our file with these lines, if one of them is missing.
fn file(path: &'static str, lines: &[Line]) -> Option<Action> {
    lines.iter().any(|line| line.missing).then(|| {
        let kept = lines.iter().filter(|line| line.missing || line.stands);
        write(path, &kept.map(|line| format!("{}\n", line.text)).collect::<String>())
    })
}

/// Only parameters that are in the way are changed.
fn namespaces(namespaces: &Namespaces) -> Step {
    let parameters = [(CLONE, namespaces.clone, 1), (MAX, namespaces.max, USER_NAMESPACES)];
    let lines = parameters.map(|(name, value, enough)| Line {
        text: format!("{name} = {enough}"),
        missing: value == Some(0),
        stands: namespaces.configured.contains(name),
    });
    let refused = parameters.iter().filter(|(_, value, _)| *value == Some(0));
    let set = refused.map(|(parameter, _, value)| Action::Set { parameter, value: *value });
    step("user namespaces", missing(file(SYSCTL, &lines).into_iter().chain(set).collect()))
}

/// A profile that only lets the binary make user namespaces: the restriction stays for all others.
fn profile(apparmor: &AppArmor, binary: &Path) -> Step {
    let text = format!(
        "{HEADER}abi <abi/4.0>,\n\
         include <tunables/global>\n\n\
         profile matchlock {} flags=(unconfined) {{\n  \
           userns,\n  \
           include if exists <local/matchlock>\n\
         }}\n",
        pattern(binary)
    );
    let ok = apparmor.profile.as_ref() == Some(&text) && apparmor.loaded != Some(false);
    let check =
        unless(ok, || vec![Action::Write { path: PROFILE, text }, run(&["apparmor_parser", "-r", PROFILE])]);
    step("user namespaces under AppArmor", check)
}

/// A path as a pattern of AppArmor that matches nothing else (`apparmor.d(5)`).
fn pattern(path: &Path) -> String {
    let mut quoted = String::from("\"");
    for character in path.to_string_lossy().chars() {
        if r#"\"*?[]{}"#.contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted + "\""
}

fn module(name: &str, loaded: bool) -> Step {
    step(&format!("module {name}"), unless(loaded, || vec![run(&["modprobe", name])]))
}

/// Open to all: making or changing an interface takes the right to do so in its network namespace.
fn tun_device(tun: Device) -> Step {
    let check = if tun.is_withheld() {
        Check::Skipped("this container was not given it: start it with --device /dev/net/tun")
    } else {
        unless(tun.node.is_some_and(Node::open_to_all), || vec![run(&["chmod", "0666", "/dev/net/tun"])])
    };
    step("/dev/net/tun", check)
}

fn kvm_device(facts: &Facts) -> Step {
    let check = if facts.kvm.is_withheld() {
        Check::Skipped("this container was not given it: start it with --device /dev/kvm")
    } else {
        unless(facts.kvm.node.is_some_and(|node| facts.kvm_opens_to_group(node)), || {
            vec![run(&["chgrp", GROUP, "/dev/kvm"]), run(&["chmod", "0660", "/dev/kvm"])]
        })
    };
    step("/dev/kvm", check)
}

/// Modules come by themselves on most hosts: only those are listed that nothing brings.
fn modules_at_boot(facts: &Facts) -> Step {
    let listed = |name: &str| facts.modules_at_boot.iter().any(|module| module == name);
    let line = |name: &str, comes: bool| Line {
        text: name.to_owned(),
        missing: !comes && !listed(name),
        stands: facts.modules.lines().any(|line| line == name),
    };
    let mut lines = vec![line("tun", facts.tun.is_withheld() || facts.tun.on_demand)];
    lines.extend(facts.kvm_module.map(|name| line(name, facts.kvm.driver)));
    step("modules after a reboot", missing(file(MODULES, &lines).into_iter().collect()))
}

/// Only rules that are missing are written: a host whose own rule opens a device to everybody does not lose
/// it.
fn devices_at_boot(facts: &Facts) -> Step {
    let line = |text: &str, device: Device, is_needed: bool| Line {
        text: text.to_owned(),
        missing: is_needed && !device.kept && !device.is_withheld(),
        stands: facts.rules.lines().any(|line| line == text),
    };
    let kvm = "KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\", OPTIONS+=\"static_node=kvm\"";
    let tun = "KERNEL==\"tun\", MODE=\"0666\", OPTIONS+=\"static_node=net/tun\"";
    let lines = [line(kvm, facts.kvm, facts.kvm_module.is_some()), line(tun, facts.tun, true)];
    step("device permissions after a reboot", missing(file(UDEV, &lines).into_iter().collect()))
}

#[cfg(test)]
mod tests;
