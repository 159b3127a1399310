# In the sandbox: with a large MTU all, else the rest by IPv6.
now() { cut -d' ' -f1 /proc/uptime; }
passed() { awk "BEGIN { printf \"%.1f s\", $2 - $1 }"; }
receive() { printf %s "$2" | timeout 60 nc "$1" 7001; }
mtu=$(cat /sys/class/net/eth0/mtu)
echo "MTU $mtu"
nslookup public.test 2>/dev/null | grep -c 'Address: 45.33.7.10'
receive 127.0.0.1 g 2>/dev/null || echo 'no server here'
receive 10.0.0.1 g 2>/dev/null || echo 'no private address'
if [ "$mtu" = 1500 ]; then
    receive 2600:45:33:7::10 s | sha256sum
    exit
fi
# Slowly, and first, when the kernel knows nothing of the connection: what waits is all that it has room for.
receive 45.33.7.10 g | for part in $(seq 110); do
    usleep 30000
    dd bs=300k count=1 iflag=fullblock 2>/dev/null
done | sha256sum
start=$(now)
receive 45.33.7.10 g | tee /tmp/file | sha256sum
received=$(now)
{ printf p; cat /tmp/file; } | timeout 60 nc 45.33.7.10 7001
echo "time: $1 received 32 MiB in $(passed "$start" "$received"), sent them in $(passed "$received" "$(now)")"
# What it had offered room for and then had none, and what the server's side had to send again.
awk '/^TcpExt/ {
    if (!n++) split($0, name)
    else for (i in name) if (name[i] ~ /^TCP(RcvQ|Backlog)Drop$/) sum += $i
} END { print "segments dropped: " sum }' /proc/net/netstat
