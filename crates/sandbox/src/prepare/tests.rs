//! What hosts of several kinds need.

use std::path::PathBuf;

use super::*;

const KVM: u32 = 104;

fn accounts() -> Accounts {
    Accounts {
        passwd: "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n"
            .into(),
        group: format!("root:x:0:\n{GROUP}:x:{KVM}:ada\n"),
    }
}

/// A device as udev's own rules make it.
fn there(node: Node) -> Device {
    Device { driver: true, node: Some(node), kept: true, on_demand: true }
}

const NONE: Device = Device { driver: false, node: None, kept: false, on_demand: false };

/// A Debian that lacks nothing.
fn prepared() -> Facts {
    Facts {
        kvm_module: Some("kvm_intel"),
        kvm: there(Node { group: KVM, mode: 0o660 }),
        tun: there(Node { group: 0, mode: 0o666 }),
        modules_at_boot: Vec::new(),
        modules: String::new(),
        rules: String::new(),
        accounts: accounts(),
        namespaces: Namespaces { clone: None, max: Some(30_000), configured: String::new() },
        apparmor: None,
        binary: "/usr/local/bin/matchlock".into(),
    }
}

/// Names and commands of what is missing.
fn missing(facts: &Facts) -> Vec<(String, Vec<String>)> {
    let missing = linux(facts).into_iter().filter_map(|step| match step.check {
        Check::Missing(actions) => {
            Some((step.name, actions.iter().map(|action| action.line(true)).collect()))
        }
        Check::Ok | Check::Skipped(_) => None,
    });
    missing.collect()
}

fn names(facts: &Facts) -> Vec<String> {
    missing(facts).into_iter().map(|(name, _)| name).collect()
}

fn only(facts: &Facts) -> (String, Vec<String>) {
    let missing = missing(facts);
    assert_eq!(missing.len(), 1, "{missing:?}");
    missing.into_iter().next().unwrap()
}

#[test]
fn a_host_that_lacks_nothing_is_left_alone() {
    assert_eq!(missing(&prepared()), []);
    assert!(linux(&prepared()).iter().all(|step| step.check == Check::Ok));
    let wider = Device { node: Some(Node { group: 0, mode: 0o666 }), ..prepared().kvm };
    assert_eq!(missing(&Facts { kvm: wider, ..prepared() }), []);
    let already = PathBuf::from("/opt/other/name");
    assert_eq!(missing(&Facts { binary: already, ..prepared() }), [], "no AppArmor, no profile");
}

#[test]
fn a_bare_debian_gets_everything_in_an_order_that_works() {
    let bare = Facts {
        kvm: NONE,
        tun: NONE,
        accounts: Accounts { group: "root:x:0:\n".into(), ..accounts() },
        namespaces: Namespaces { clone: Some(0), max: Some(0), configured: String::new() },
        ..prepared()
    };
    let commands: Vec<String> = missing(&bare).into_iter().flat_map(|(_, commands)| commands).collect();
    let header = "'# Written by `matchlock setup linux`.'";
    assert_eq!(
        commands,
        [
            "groupadd --system kvm",
            &format!(
                "printf '%s\\n' {header} 'kernel.unprivileged_userns_clone = 1' 'user.max_user_namespaces = 28633' \
                 | install -D -m 0644 /dev/stdin /etc/sysctl.d/60-matchlock.conf"
            ),
            "sysctl -w kernel.unprivileged_userns_clone=1",
            "sysctl -w user.max_user_namespaces=28633",
            "modprobe tun",
            "chmod 0666 /dev/net/tun",
            &format!(
                "printf '%s\\n' {header} tun kvm_intel | install -D -m 0644 /dev/stdin /etc/modules-load.d/matchlock.conf"
            ),
            &format!(
                "printf '%s\\n' {header} 'KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\", OPTIONS+=\"static_node=kvm\"' \
                 'KERNEL==\"tun\", MODE=\"0666\", OPTIONS+=\"static_node=net/tun\"' \
                 | install -D -m 0644 /dev/stdin /etc/udev/rules.d/65-matchlock.rules"
            ),
            "modprobe kvm_intel",
            "chgrp kvm /dev/kvm",
            "chmod 0660 /dev/kvm",
        ]
    );
}

#[test]
fn what_stands_in_our_configuration_stays_there() {
    let namespaces =
        Namespaces { clone: Some(1), max: Some(0), configured: format!("{HEADER}{CLONE} = 1\n") };
    let (name, commands) = only(&Facts { namespaces, ..prepared() });
    assert_eq!(name, "user namespaces");
    assert!(commands[0].contains("'kernel.unprivileged_userns_clone = 1' 'user.max"), "{commands:?}");
    assert_eq!(commands[1..], ["sysctl -w user.max_user_namespaces=28633"]);
}

#[test]
fn a_value_that_suffices_is_neither_changed_nor_pinned() {
    let namespaces = Namespaces { clone: Some(0), max: Some(30_000), configured: String::new() };
    let (_, commands) = only(&Facts { namespaces, ..prepared() });
    assert!(!commands.concat().contains("max_user_namespaces"), "{commands:?}");
}

#[test]
fn under_apparmor_only_our_binary_is_let_through() {
    let restricted = |profile, loaded| Facts {
        apparmor: Some(AppArmor { profile, loaded, restricts_us: true }),
        ..prepared()
    };
    let (name, commands) = only(&restricted(None, Some(false)));
    assert_eq!(name, "user namespaces under AppArmor");
    assert!(!commands.concat().contains("apparmor_restrict"), "the restriction stays: {commands:?}");
    assert_eq!(commands[1..], ["apparmor_parser -r /etc/apparmor.d/matchlock"]);
    let Check::Missing(actions) = &linux(&restricted(None, None))[2].check else { panic!() };
    let Action::Write { text, path: PROFILE } = &actions[0] else { panic!("{actions:?}") };
    assert_eq!(
        *text,
        "# Written by `matchlock setup linux`.\nabi <abi/4.0>,\ninclude <tunables/global>\n\n\
         profile matchlock \"/usr/local/bin/matchlock\" flags=(unconfined) {\n  userns,\n  \
         include if exists <local/matchlock>\n}\n"
    );
    for (loaded, enough) in [(Some(true), true), (None, true), (Some(false), false)] {
        assert_eq!(missing(&restricted(Some(text.clone()), loaded)).is_empty(), enough, "{loaded:?}");
    }
    let moved = Facts { binary: "/opt/matchlock".into(), ..restricted(Some(text.clone()), Some(true)) };
    assert_eq!(names(&moved), ["user namespaces under AppArmor"]);
}

#[test]
fn a_path_is_no_pattern_in_a_profile() {
    let hostile = Path::new("/home/*/{a,b}\" flags=(complain) {}");
    assert_eq!(pattern(hostile), r#""/home/\*/\{a,b\}\" flags=(complain) \{\}""#);
}

#[test]
fn without_hardware_kvm_is_skipped_and_the_rest_is_done() {
    let facts = Facts { kvm_module: None, kvm: NONE, tun: NONE, ..prepared() };
    let (device, modules) = ("/dev/net/tun", "modules after a reboot");
    assert_eq!(names(&facts), ["module tun", device, modules, "device permissions after a reboot"]);
    assert!(!missing(&facts)[3].1.concat().contains("kvm"), "there is no KVM to keep");
    let steps = linux(&facts);
    assert!(matches!(steps.last(), Some(Step { check: Check::Skipped(_), .. })), "{steps:?}");
    let prepared = Facts { kvm_module: None, kvm: NONE, ..prepared() };
    assert_eq!(names(&prepared), Vec::<String>::new());
}

#[test]
fn a_container_is_not_given_what_only_its_runtime_can_give() {
    let withheld = Device { driver: true, ..NONE };
    let facts = Facts { kvm: withheld, tun: withheld, ..prepared() };
    assert_eq!(names(&facts), Vec::<String>::new());
    let skipped = linux(&facts).into_iter().filter_map(|step| match step.check {
        Check::Skipped(why) => Some((step.name, why.rsplit_once(' ').unwrap().1)),
        _ => None,
    });
    let [tun, kvm] = ["/dev/net/tun", "/dev/kvm"];
    assert_eq!(skipped.collect::<Vec<_>>(), [(tun.to_owned(), tun), (kvm.to_owned(), kvm)]);
}

#[test]
fn a_rule_that_stands_elsewhere_is_not_overruled() {
    let tun = Device { kept: false, ..prepared().tun };
    let (_, commands) = only(&Facts { tun, ..prepared() });
    assert!(commands[0].contains("KERNEL==\"tun\"") && !commands[0].contains("kvm\""), "{commands:?}");
    let ours = "KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\", OPTIONS+=\"static_node=kvm\"\n";
    let (_, commands) = only(&Facts { tun, rules: format!("{HEADER}{ours}"), ..prepared() });
    assert!(commands[0].contains(ours.trim_end()), "what stands in our file stays there: {commands:?}");
}

#[test]
fn tun_is_listed_only_where_nothing_loads_it() {
    let tun = Device { on_demand: false, ..prepared().tun };
    assert_eq!(only(&Facts { tun, ..prepared() }).0, "modules after a reboot");
    let listed = Facts { tun, modules_at_boot: vec!["tun".into()], ..prepared() };
    assert_eq!(missing(&listed), []);
    let kvm = Device { driver: false, node: None, ..prepared().kvm };
    let list = |facts: &Facts| missing(facts)[0].1[0].clone();
    assert!(!list(&Facts { kvm, ..prepared() }).contains("tun"));
    let ours = Facts { kvm, modules: format!("{HEADER}tun\n"), ..listed };
    assert!(list(&ours).contains("' tun kvm_intel |"), "what stands in our list stays there");
}

#[test]
fn each_piece_of_kvm_is_seen_on_its_own() {
    let kvm = prepared().kvm;
    for node in [
        Node { group: KVM, mode: 0o600 },
        Node { group: KVM, mode: 0o640 },
        Node { group: 0, mode: 0o660 },
        Node { group: 0, mode: 0o664 },
    ] {
        let (name, commands) = only(&Facts { kvm: Device { node: Some(node), ..kvm }, ..prepared() });
        assert_eq!((name.as_str(), commands.len()), ("/dev/kvm", 2), "{node:?}");
    }
    let kept = only(&Facts { kvm: Device { kept: false, ..kvm }, ..prepared() });
    assert_eq!(kept.0, "device permissions after a reboot");
    // Without its group, the file's group is somebody else's.
    let gone = Facts { accounts: Accounts { group: String::new(), ..accounts() }, ..prepared() };
    assert_eq!(names(&gone), ["group kvm", "/dev/kvm"]);
    let unloaded = Device { node: None, driver: false, ..kvm };
    assert_eq!(
        names(&Facts { kvm: unloaded, ..prepared() }),
        ["modules after a reboot", "module kvm_intel", "/dev/kvm"]
    );
}

#[test]
fn a_user_joins_the_group_once() {
    let step = user(&prepared(), "bob").unwrap();
    assert_eq!(step.name, "bob in the group kvm");
    let Check::Missing(actions) = step.check else { panic!() };
    assert_eq!(
        actions.iter().map(|action| action.line(false)).collect::<Vec<_>>(),
        ["sudo usermod -aG kvm bob"]
    );
    assert_eq!(user(&prepared(), "ada").unwrap().check, Check::Ok);
    for unknown in ["eve", "", "-R", "bob:x", "bob\nada"] {
        assert_eq!(user(&prepared(), unknown), Err(PrepareError::NoUser(unknown.into())));
    }
    let accounts = Accounts { group: "root:x:0:\n".into(), ..accounts() };
    let without = Facts { accounts, ..prepared() };
    assert_eq!(user(&without, "bob"), Err(PrepareError::NoGroup));
    // Systemd's own rules open it to everybody unless told otherwise.
    let open = Facts { kvm: there(Node { group: KVM, mode: 0o666 }), ..without };
    assert!(matches!(user(&open, "bob").unwrap().check, Check::Skipped(_)));
}
