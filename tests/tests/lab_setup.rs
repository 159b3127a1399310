//! `matchlock setup` as root, in a lab: each piece is taken away, found missing by an ordinary user, and
//! put back.

use harness::Lab;

/// Takes pieces away one after the other.
const PIECES: &str = r#"
as_lab() {
    setpriv --reuid lab --regid lab --init-groups env -i HOME=/home/lab USER=lab PATH="$PATH" "$@"
}
words() { sed 's/  */ /g; s/group [0-9][0-9]*/group N/'; }
# What is missing and its fix. Without a kernel it boots nothing, and a lab is slow. Acceleration is left
# out: it follows from the rest, but for the speed, which in a lab may be anything.
diagnose() {
    as_lab env MATCHLOCK_KERNEL=/nonexistent matchlock diagnose |
        sed -n '/^warning  acceleration/d; /^warning/ { p; n; p }' | words
}
# What was done. The rest of a file's line says what is in it.
setup() { matchlock setup "$@" 2>&1 | grep -v '^ok' | sed 's/printf .* | install/printf | install/' | words; }

echo '== as it boots'
diagnose
matchlock setup linux >/dev/null
setup linux

echo '== making a VM'
acceleration() {
    as_lab env MATCHLOCK_KERNEL=/nonexistent matchlock diagnose | grep -A 1 acceleration |
        sed 's/[0-9][0-9]* ms/N ms/' | words
}
acceleration
mount -o remount,favordynmods /sys/fs/cgroup
acceleration | head -n 1

echo '== mode of /dev/kvm'
chmod 600 /dev/kvm
diagnose
setup linux

echo '== module of KVM'
rmmod kvm_amd kvm
diagnose
setup linux

echo '== member of the group'
gpasswd -d lab kvm >/dev/null
diagnose
setup user lab
setup user lab

echo '== group'
groupdel kvm
diagnose
setup user lab
setup linux
setup user lab

echo '== number of namespaces'
echo 0 >/proc/sys/user/max_user_namespaces
diagnose
setup linux

echo '== namespaces of users'
echo 0 >/proc/sys/kernel/unprivileged_userns_clone
diagnose
setup linux

echo '== module tun'
rmmod tun
diagnose
setup linux

echo '== a command that fails'
rmmod tun
chmod 600 /dev/kvm
mv /usr/sbin/modprobe /usr/sbin/modprobe.away
setup linux
mv /usr/sbin/modprobe.away /usr/sbin/modprobe
setup linux

echo '== mode of tun, by the dry run'
chmod 600 /dev/net/tun
diagnose
as_lab matchlock setup linux --dry-run
matchlock setup linux --dry-run | sh

echo '== after a reboot, by the dry run'
mkdir -p /etc/udev/rules.d
for rules in /usr/lib/udev/rules.d/*; do : >"/etc/udev/rules.d/${rules##*/}"; done
rm /etc/modules-load.d/matchlock.conf
matchlock setup linux --dry-run | sh

echo '== in the end'
diagnose
setup linux
as_lab matchlock diagnose | tail -n 1
cd /etc && tail -n +1 modules-load.d/matchlock.conf sysctl.d/60-matchlock.conf udev/rules.d/65-matchlock.rules
"#;

/// What they say to that.
const SAID: &str = r#"== as it boots
Nothing to do.
== making a VM
warning acceleration KVM; this kernel takes N ms to make a VM
 fix: sudo mount -o remount,favordynmods /sys/fs/cgroup (until the next boot)
ok acceleration KVM
== mode of /dev/kvm
warning /dev/kvm does not let the group kvm in: group N, mode 0600
 fix: sudo /lab/bin/matchlock setup linux
done /dev/kvm
 chgrp kvm /dev/kvm
 chmod 0660 /dev/kvm
This machine is prepared.
== module of KVM
warning /dev/kvm the module kvm_amd is not loaded
 fix: sudo /lab/bin/matchlock setup linux
done modules after a reboot
 printf | install -D -m 0644 /dev/stdin /etc/modules-load.d/matchlock.conf
done module kvm_amd
 modprobe kvm_amd
done /dev/kvm
 chgrp kvm /dev/kvm
 chmod 0660 /dev/kvm
This machine is prepared.
== member of the group
warning /dev/kvm you are not in the group kvm
 fix: sudo /lab/bin/matchlock setup user $USER, then log in again
done lab in the group kvm
 usermod -aG kvm lab
It counts once lab has logged in again.
Nothing to do.
== group
warning /dev/kvm does not let the group kvm in: group N, mode 0660
 fix: sudo /lab/bin/matchlock setup linux
error: there is no group kvm
hint: prepare the machine first: sudo /lab/bin/matchlock setup linux
done group kvm
 groupadd --system kvm
done /dev/kvm
 chgrp kvm /dev/kvm
 chmod 0660 /dev/kvm
This machine is prepared.
done lab in the group kvm
 usermod -aG kvm lab
It counts once lab has logged in again.
== number of namespaces
warning user namespaces user.max_user_namespaces is 0
 fix: sudo /lab/bin/matchlock setup linux
done user namespaces
 printf | install -D -m 0644 /dev/stdin /etc/sysctl.d/60-matchlock.conf
 sysctl -w user.max_user_namespaces=28633
This machine is prepared.
== namespaces of users
warning user namespaces kernel.unprivileged_userns_clone is 0
 fix: sudo /lab/bin/matchlock setup linux
done user namespaces
 printf | install -D -m 0644 /dev/stdin /etc/sysctl.d/60-matchlock.conf
 sysctl -w kernel.unprivileged_userns_clone=1
This machine is prepared.
== module tun
warning /dev/net/tun the module tun is not loaded
 fix: sudo /lab/bin/matchlock setup linux
done module tun
 modprobe tun
done /dev/net/tun
 chmod 0666 /dev/net/tun
This machine is prepared.
== a command that fails
failed module tun: cannot run modprobe: No such file or directory (os error 2)
 modprobe tun
failed /dev/net/tun: chmod 0666 /dev/net/tun failed: chmod: cannot access '/dev/net/tun': No such file or directory
 chmod 0666 /dev/net/tun
done /dev/kvm
 chgrp kvm /dev/kvm
 chmod 0660 /dev/kvm
error: cannot run modprobe
 caused by: No such file or directory (os error 2)
hint: install the package that has it, then run this again
error: chmod 0666 /dev/net/tun failed: chmod: cannot access '/dev/net/tun': No such file or directory
done module tun
 modprobe tun
done /dev/net/tun
 chmod 0666 /dev/net/tun
This machine is prepared.
== mode of tun, by the dry run
warning /dev/net/tun no permission to open it
 fix: sudo /lab/bin/matchlock setup linux
# ok       group kvm
# ok       user namespaces
# ok       module tun
# missing  /dev/net/tun
sudo chmod 0666 /dev/net/tun
# ok       modules after a reboot
# ok       device permissions after a reboot
# ok       module kvm_amd
# ok       /dev/kvm
== after a reboot, by the dry run
== in the end
Nothing to do.
Sandboxes can run here.
==> modules-load.d/matchlock.conf <==
# Written by `matchlock setup linux`.
tun

==> sysctl.d/60-matchlock.conf <==
# Written by `matchlock setup linux`.
kernel.unprivileged_userns_clone = 1
user.max_user_namespaces = 28633

==> udev/rules.d/65-matchlock.rules <==
# Written by `matchlock setup linux`.
KERNEL=="kvm", GROUP="kvm", MODE="0660", OPTIONS+="static_node=kvm"
KERNEL=="tun", MODE="0666", OPTIONS+="static_node=net/tun"
"#;

#[test]
fn each_missing_piece_is_named_to_an_ordinary_user_and_put_back_by_root() {
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&script, PIECES).unwrap();
    let output = Lab::of_root().with(script.path(), "/tmp/pieces").run(&["sh", "/tmp/pieces"]);
    let said = output.stdout_text();
    let differs = said.lines().zip(SAID.lines()).find(|(said, expected)| said != expected);
    assert_eq!(differs, None, "{said}\n{}", output.stderr_text());
    assert_eq!((said.len(), output.code), (SAID.len(), Some(0)), "{said}\n{}", output.stderr_text());
}
