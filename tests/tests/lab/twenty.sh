matchlock() {
    setpriv --reuid lab --regid lab --init-groups env -i HOME=/home/lab USER=lab PATH="$PATH" $MATCHLOCK_BIN "$@"
}
matchlock image import busybox </tmp/busybox.tar >/dev/null 2>&1
start=$(date +%s)
for number in $(seq 20); do
    matchlock run -d --backend firecracker --name number$number --memory 128 --image busybox -- sleep 1000 \
        >/dev/null 2>/tmp/said$number &
    # A few at a time: there is one CPU, and what is not ready within a minute is given up.
    [ $((number % 5)) != 0 ] || wait
done
echo "time: twenty sandboxes after $(($(date +%s) - start)) s"
cat /tmp/said*
echo "$(matchlock list | grep -c ' running ') run"
echo "$(ls -l /proc/[0-9]*/ns/net 2>/dev/null | sed 's/.*-> //' | sort -u | wc -l) networks"
for number in $(seq 20); do matchlock exec number$number -- echo $number; done | paste -sd ' '
matchlock kill --all >/dev/null
matchlock prune | tail -n 1
find /home/lab/.matchlock/sandboxes -mindepth 1
cat /proc/[0-9]*/comm 2>/dev/null | grep -xE 'matchlock|firecracker|qemu-system-x86'
ls -l /proc/[0-9]*/ns/net 2>/dev/null | sed 's/.*-> //' | sort -u | wc -l
ip -o link | grep -v ': lo:'
true
