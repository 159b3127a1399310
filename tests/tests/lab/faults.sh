SYSTEM=/usr/bin:/bin:/usr/sbin:/sbin
path=$PATH kernel=
as_lab() {
    setpriv --reuid lab --regid lab --init-groups env -i HOME=/home/lab USER=lab PATH="$path" \
        ${kernel:+MATCHLOCK_KERNEL="$kernel"} "$@"
}
matchlock() { as_lab $MATCHLOCK_BIN "$@"; }
firecracker() { matchlock run --backend firecracker --image busybox "$@"; }
# What is said, without what is another each time.
said() {
    start=$(date +%s) code=0
    "$@" >/tmp/said 2>&1 || code=$?
    sed 's/: [0-9T:.-]* \[matchlock:main\]/:/' /tmp/said
    echo "code $code"
    took=$(($(date +%s) - start))
}
remains() {
    for try in 1 2 3 4 5 6 7 8 9 10; do
        cat /proc/[0-9]*/comm 2>/dev/null | grep -qxE 'matchlock|firecracker|qemu-system-x86' || break
        sleep 0.2
    done
    {
        cat /proc/[0-9]*/comm 2>/dev/null | grep -xE 'matchlock|firecracker|qemu-system-x86'
        ls -l /proc/[0-9]*/ns/net 2>/dev/null | sed 's/.*-> //' | sort -u | tail -n +2
        ip -o link | grep -v ': lo:'
        find /home/lab/.matchlock/sandboxes -mindepth 1
        matchlock list | tail -n +2
    } >/tmp/remains
    if [ -s /tmp/remains ]; then cat /tmp/remains; else echo 'nothing is left'; fi
}
matchlock image import busybox </tmp/busybox.tar >/dev/null 2>&1

echo '== missing'
path=$SYSTEM
said firecracker -- true
matchlock diagnose | grep -A 1 -E '^.{8} (firecracker|test VM)' | sed 's/  */ /g; s/after [0-9]* ms/after N ms/; 2,$ { /wall/d }'

echo '== old'
mkdir /tmp/old /tmp/crashing /tmp/hanging
sed 's/1\.12\.1/1.06.1/g' /lab/bin/firecracker >/tmp/old/firecracker
chmod 755 /tmp/old/firecracker
path=/tmp/old:$SYSTEM
said firecracker -- true

echo '== crashing'
cp /bin/busybox /tmp/crashing/firecracker
path=/tmp/crashing:$SYSTEM
said firecracker -- true
[ $took -lt 15 ] || echo "it took $took s"
matchlock diagnose | grep -A 1 -E '^.{8} test VM' | sed 's/  */ /g'

echo '== hanging'
# pause(2), again and again.
python3 - <<'END'
import struct
code, base = b'\xb8\x22\0\0\0\x0f\x05\xeb\xf7', 0x400000
size = 120 + len(code)
elf = b'\x7fELF\2\1\1' + bytes(9) + struct.pack('<2HI3QI6H', 2, 62, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
elf += struct.pack('<2I6Q', 1, 5, 0, base, base, size, size, 4096)
open('/tmp/hanging/firecracker', 'wb').write(elf + code)
END
chmod 755 /tmp/hanging/firecracker
path=/tmp/hanging:$SYSTEM
said firecracker -- true
[ $took -ge 20 ] && [ $took -lt 40 ] || echo "it took $took s"
remains
path=$PATH

echo '== kernels'
head -c 3000000 /lab/kernels/*/vmlinux >/tmp/truncated
for kernel in /bin/true /tmp/truncated; do said firecracker -- true; done
kernel=

echo '== more than there is'
said firecracker --cpus 33 -- true
said firecracker --memory 8000 --no-network -- sh -c 'free -m | awk "/Mem/ { print (\$2 > 7500) }"'
echo 2 >/proc/sys/vm/overcommit_memory
said firecracker --memory 100000 --no-network -- true
echo 0 >/proc/sys/vm/overcommit_memory
for number in $(seq 15); do
    matchlock volume create volume$number --size 16 >/dev/null
    disks="$disks --disk @volume$number:/volume/$number"
done
said firecracker --no-network $disks -- true
said firecracker ${disks% --disk*} -- true
said firecracker --no-network ${disks% --disk*} -- sh -c 'mount | grep -c /volume/'
remains

echo '== killed'
firecracker -- sh -c 'echo runs; sleep 1000' >/tmp/runs 2>&1 &
until grep -q runs /tmp/runs; do sleep 0.1; done
pkill -9 -x firecracker
wait $! || echo "code $?"
cat /tmp/runs
remains

sandbox=/home/lab/.matchlock/sandboxes
has_directory() { ls -d $sandbox/*/lock >/dev/null 2>&1; }
has_process() { cat /proc/[0-9]*/comm 2>/dev/null | grep -qx firecracker; }
has_sockets() { ls $sandbox/*/firecracker/vsock >/dev/null 2>&1; }
is_running() { grep -q runs /tmp/runs; }
for moment in has_directory has_process has_sockets is_running; do
    echo "== owner killed once it $moment"
    : >/tmp/runs
    (
        exec setpriv --reuid lab --regid lab --init-groups env -i HOME=/home/lab USER=lab PATH="$PATH" \
            matchlock run --backend firecracker --image busybox -- sh -c 'echo runs; sleep 1000' >/tmp/runs 2>&1
    ) &
    until $moment; do :; done
    kill -9 $!
    wait $!
    echo "code $?"
    # Before anybody has looked after it.
    sleep 0.5
    cat /proc/[0-9]*/comm 2>/dev/null | grep -x firecracker
    matchlock gc | sed 's/vm-[0-9a-f]*/vm-ID/g; s/process [0-9]*/process N/'
    remains
done
