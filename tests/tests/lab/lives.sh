# Every kind of life that a sandbox can have, by either VMM.
matchlock diagnose | grep -E '^.{8} (acceleration|firecracker|test VM)' |
    # Whether the kernel takes long to make a VM is its own affair here.
    sed 's/  */ /g; s/after [0-9]* ms/after N ms/; s/^.*acceleration KVM.*/acceleration KVM/'
matchlock image import busybox </tmp/busybox.tar >/dev/null 2>&1
for volume in data shown; do matchlock volume create $volume --size 16 >/dev/null; done

run() { matchlock run --image busybox "$@"; }
ran_by() { matchlock inspect kept | sed -n 's/.*"backend": "\(.*\)".*/by \1/p'; }
ends() {
    code=0
    run --privileged "$@" >/dev/null 2>/tmp/said || code=$?
    grep -E '^(error|hint|  caused by)' /tmp/said | sed 's/^\(.*\); last line.*/\1/'
    echo "code $code"
}

for MATCHLOCK_BACKEND in firecracker qemu; do
    export MATCHLOCK_BACKEND
    echo "== $MATCHLOCK_BACKEND"
    run -- sh -c 'id -u; exit 3' || echo "run $?"
    run --allow-host good.test -- nslookup evil.test >/dev/null 2>&1 || echo refused
    run -d --name kept --cpus 2 --memory 200 --disk @data:/data,@shown:/shown:ro -- sleep 1000 >/dev/null
    ran_by
    echo through | matchlock exec -i kept -- cat
    matchlock exec kept -- sh -c '
        nproc
        awk "/MemTotal/ { print (\$2 > 150000 && \$2 < 204800) ? \"its memory\" : \$2 }" /proc/meminfo
        echo "$0 was here" >>/root/file && echo "$0 was here" >>/data/file
        touch /shown/file
    ' $MATCHLOCK_BACKEND 2>&1
    matchlock stop kept >/dev/null
    matchlock start kept >/dev/null
    ran_by
    matchlock exec kept -- cat /root/file /data/file
    matchlock kill kept >/dev/null
    matchlock rm kept >/dev/null
    ends -- reboot -f
    ends --memory 64 -- sh -c '
        echo 2 >/proc/sys/vm/panic_on_oom
        mount -o remount,size=1g /dev/shm
        dd if=/dev/zero of=/dev/shm/all bs=1M
    '
done

echo '== auto'
unset MATCHLOCK_BACKEND
run -d --name kept -- sh -c 'echo said; sleep 1000' >/dev/null
ran_by
matchlock exec kept -- sh -c 'echo kept >/root/file'
matchlock log kept | grep said
matchlock stop kept >/dev/null
PATH=/usr/bin:/bin $MATCHLOCK_BIN start kept >/dev/null
ran_by
matchlock exec kept -- cat /root/file
matchlock kill kept >/dev/null
matchlock rm kept >/dev/null
matchlock gc
find .matchlock/sandboxes -mindepth 1
cat /proc/[0-9]*/comm 2>/dev/null | grep -xE 'matchlock|firecracker|qemu-system-x86'
true
