as_lab() {
    setpriv --reuid lab --regid lab --init-groups env -i HOME=/home/lab USER=lab PATH="$PATH" "$@"
}
ip link add public type dummy && ip link set public up
ip addr add 45.33.7.10/32 dev public && ip addr add 2600:45:33:7::10/128 dev public nodad
as_lab matchlock image import busybox </tmp/busybox.tar >/dev/null 2>&1
python3 /tmp/server >/tmp/served &
server=$!
until [ -s /tmp/served ]; do sleep 0.1; done
for backend in firecracker qemu; do
    for mtu in 65520 1500; do
        echo "== $backend"
        as_lab matchlock run --backend $backend --mtu $mtu --memory 256 --image busybox \
            --allow-host 45.33.7.10,2600:45:33:7::10 --add-host public.test:45.33.7.10 \
            -- sh -c "$(cat /tmp/guest)" guest $backend 2>&1
    done
done
kill $server
wait
