as_lab() {
    setpriv --reuid lab --regid lab --init-groups env -i HOME=/home/lab USER=lab PATH="$PATH" "$@"
}
by() { as_lab matchlock run --backend "$@" 2>&1 || echo "code $?"; }
chosen() { as_lab env MATCHLOCK_KERNEL=/nonexistent matchlock diagnose | sed -n '/^.\{9\}firecracker/ { s/  */ /g; p; }'; }
as_lab matchlock image import busybox </tmp/busybox.tar >/dev/null 2>&1

echo '== KVM is not for this user'
chmod 600 /dev/kvm
chosen
by firecracker --image busybox -- true
chmod 660 /dev/kvm

echo '== no KVM'
rmmod kvm_amd
chosen
by firecracker --image busybox -- true
modprobe kvm_amd
chgrp kvm /dev/kvm && chmod 660 /dev/kvm

echo '== no user namespaces'
namespaces=$(cat /proc/sys/user/max_user_namespaces)
echo 0 >/proc/sys/user/max_user_namespaces
chosen
by firecracker --image busybox -- true
by firecracker --no-network --image busybox -- id -u
by auto --image busybox -- id -u
echo "$namespaces" >/proc/sys/user/max_user_namespaces

echo '== no TAP devices'
chmod 600 /dev/net/tun
chosen
by firecracker --image busybox -- true
by firecracker --no-network --image busybox -- id -u
by auto --image busybox -- id -u
chmod 666 /dev/net/tun

echo '== root'
MATCHLOCK_KERNEL=$(ls /lab/kernels/*/vmlinux)
export MATCHLOCK_KERNEL
matchlock image import busybox </tmp/busybox.tar >/dev/null 2>&1
matchlock diagnose | sed -n '/^.\{9\}\(firecracker\|test VM\)/ { s/  */ /g; s/after [0-9]* ms/after N ms/; p; }'
matchlock run --image busybox -- id -u
matchlock run --backend firecracker --image busybox -- id -u
find /home/lab/.matchlock/sandboxes /root/.matchlock/sandboxes -mindepth 1
cat /proc/[0-9]*/comm 2>/dev/null | grep -xE 'matchlock|firecracker|qemu-system-x86'
true
