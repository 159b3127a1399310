#!/bin/sh
# A small internet: site.sh DIRECTORY
#
# Runs as the first process of new user (unless root), network, mount and process namespaces, and so does
# everything that it starts. This network is that of a user's machine; its one cable leads to another
# namespace with all the servers, at addresses that look public and at private ones, and from there
# leads none: whoever enters can reach what is listed here and no other host. It ends, and removes
# DIRECTORY, when its standard input does: the servers never outlive the test that asked for them.
set -eu
HERE=$(dirname "$0")
SITE=$1
PATH=$PATH:/usr/sbin:/sbin
# A user's 1024 descriptors are not enough for two thousand connections.
ulimit -Sn "$(ulimit -Hn)"
cd "$SITE"

# Two web sites behind nginx, one allowed and one not; servers of web.py; of sockets.py; a name server
# for us, one that nobody should ever ask, and one that a user may choose.
NGINX=45.33.7.10 WEB=45.33.7.11 GRPC=45.33.7.12 WEBSOCKET=45.33.7.13 TCP=45.33.7.14 EVIL=45.33.7.15 WRONG=45.33.7.16
DNS=45.33.7.53 OTHER_DNS=45.33.7.54 CHOSEN_DNS=45.33.7.55
WEB6=2600:45:33:7::11 EVIL6=2600:45:33:7::15
# A private host that a user may allow, and private ones that nobody does: in the network, and the
# machine itself by all its names.
INSIDE=10.77.0.1
TRAPS=10.66.0.1,172.16.66.1,192.168.66.1,169.254.169.254,100.64.66.1,fd00:66::1
SELF=45.33.8.2 SELF6=2600:45:33:8::2
OWN_TRAPS=127.0.0.1,::1,$SELF,$SELF6
# Debian's: other interpreters do not have its libraries.
PYTHON=/usr/bin/python3

# In either namespace.
basics() {
    echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6 || true
    # For those who come here without our rights.
    echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
    ip link set lo up
}

# The servers' end of the cable; the other one is that of process 1. What is not here is nowhere, and who
# asks for it is told so at once.
servers_network() {
    basics
    echo 1 >/proc/sys/net/ipv4/ip_forward
    echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
    addresses=$(echo "$TRAPS" | tr , ' ')
    for address in $NGINX $WEB $GRPC $WEBSOCKET $TCP $EVIL $WRONG $DNS $OTHER_DNS $CHOSEN_DNS $INSIDE $WEB6 $EVIL6 $addresses; do
        case $address in
        *:*) echo "address add $address/128 dev lo nodad" ;;
        *) echo "address add $address/32 dev lo" ;;
        esac
    done >"batch"
    ip -batch batch
    ip link add cable mtu 65535 type veth peer name eth0 mtu 65535 netns 1
    ip address add 45.33.8.1/24 dev cable
    ip address add 2600:45:33:8::1/64 dev cable nodad
    ip link set cable up
    ip route add unreachable default
    ip -6 route add unreachable default
}

users_network() {
    basics
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done
    ip address add $SELF/24 dev eth0
    ip address add $SELF6/64 dev eth0 nodad
    ip link set eth0 up
    ip route add default via 45.33.8.1
    ip -6 route add default via 2600:45:33:8::1
}

# The name server is that of the whole system. Nothing else answers for names, and no socket in /run
# leads out of here. sshd, if it runs as root, wants a user and a directory.
system() {
    resolver=$(readlink -m /etc/resolv.conf)
    mount -t tmpfs -o mode=755 none /run
    mkdir -p "$(dirname "$resolver")" /run/sshd
    [ -e "$resolver" ] || : >"$resolver"
    echo "nameserver $DNS" >resolv.conf
    mount --bind resolv.conf "$resolver"
    echo "hosts: files dns" >nsswitch.conf
    [ ! -e /etc/nsswitch.conf ] || mount --bind nsswitch.conf /etc/nsswitch.conf
}

# certificate NAME SUBJECT_ALTERNATIVE_NAMES: NAME.pem with the key, by the authority ca.pem.
certificate() {
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj "/CN=$1" -out "$1.csr"
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:false\n' "$2" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.crt"
    cat "$1.crt" ca.pem "$1.key" >"$1.pem"
}

certificates() {
    mkdir certificates
    cd certificates
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -days 30 \
        -subj "/CN=Authority of this test" -addext keyUsage=critical,keyCertSign,cRLSign -out ca.pem
    addresses=$(for address in $NGINX $WEB $TCP $WEB6; do printf ',IP:%s' "$address"; done)
    certificate good "DNS:good.test,DNS:*.good.test$addresses"
    certificate evil "DNS:evil.test,DNS:*.evil.test,IP:$EVIL,IP:$EVIL6"
    cd ..
}

nginx_config() {
    cat <<END
daemon off;
pid nginx.pid;
error_log nginx.log;
$([ "$(id -u)" != 0 ] || echo 'user root;')
worker_processes 1;
events { worker_connections 8192; }
http {
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate certificates/good.pem;
    ssl_certificate_key certificates/good.pem;
    proxy_http_version 1.1;
    proxy_buffering off;
    proxy_request_buffering off;
    proxy_set_header Host \$host;
    proxy_set_header X-Client-Protocol \$server_protocol;
    proxy_set_header X-Client-Sni \$ssl_server_name;
    # It answers for names of evil.test, too, as a content delivery network does.
    server {
        listen $NGINX:80;
        listen $NGINX:443 ssl http2 reuseport;
        server_name www.good.test cdn.evil.test;
        root www/www.good.test;
        default_type application/octet-stream;
        location /hello { add_header X-Protocol \$server_protocol; return 200 "hello over \$server_protocol\n"; }
        location /who { return 200 "\$host by \$ssl_server_name\n"; }
    }
    server {
        listen $NGINX:80;
        listen $NGINX:443 ssl http2;
        server_name *.good.test;
        location / { proxy_pass http://$WEB; }
    }
    # Its certificate is for other names.
    server {
        listen $WRONG:443 ssl;
        ssl_certificate certificates/evil.pem;
        ssl_certificate_key certificates/evil.pem;
        location / { return 200 "you should not see this\n"; }
    }
}
END
}

# sshd at TCP, port 22, for the user git and the key user. Names of users are its own: root's, or those of
# who is root in here only, and cannot become anybody else.
ssh_server() {
    ssh-keygen -q -t ed25519 -N '' -f host
    ssh-keygen -q -t ed25519 -N '' -f user
    printf '%s\n' "Port 22" "ListenAddress $TCP" "HostKey $SITE/host" "AuthorizedKeysFile $SITE/user.pub" \
        "PidFile none" "StrictModes no" "PasswordAuthentication no" "PermitRootLogin yes" >sshd.conf
    uid=0 become=
    if [ "$(cat /proc/self/setgroups)" = deny ]; then
        uid=1 become="unshare --user --map-user=1 --map-group=1"
    fi
    printf '%s\n' "git:x:$uid:$uid::$SITE:/bin/sh" 'sshd:x:65533:65533::/run/sshd:/bin/false' >passwd
    # shellcheck disable=SC2016,SC2086 # for the inner shell; words
    exec unshare --mount sh -ec 'mount --bind passwd /etc/passwd; exec "$@"' sh $become \
        "$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f "$SITE/sshd.conf"
}

# server NAME COMMAND...: in the background; that it ends is told, and is the end of the wait for it.
server() {
    name=$1
    shift
    ("$@" </dev/null 2>"$name.err" || cat "$name.err" >&2; echo "failed: $name") &
}

# Everything behind the cable.
servers() {
    servers_network
    server dns "$PYTHON" "$HERE/dns.py" zone.json dns.jsonl $DNS $OTHER_DNS $CHOSEN_DNS
    server web "$PYTHON" "$HERE/web.py" "$SITE" certificates $WEB,$WEB6,$INSIDE $EVIL,$EVIL6 $TRAPS
    server sockets "$PYTHON" "$HERE/sockets.py" "$SITE" certificates $WEBSOCKET $GRPC $TCP
    server ssh ssh_server
    server nginx nginx -e nginx.log -p "$SITE" -c "$SITE/nginx.conf"
    wait
}

if [ "${2-}" = servers ]; then
    servers
    exit
fi
system
certificates 2>openssl.log || { cat openssl.log >&2; exit 1; }
mkdir -p www/www.good.test
truncate -s 1G www/www.good.test/zeros
nginx_config >nginx.conf
"$PYTHON" "$HERE/content.py" "$SITE"
unshare --net "$0" "$SITE" servers </dev/null &
users_network
server own "$PYTHON" "$HERE/web.py" "$SITE" certificates "" "" $OWN_TRAPS
until [ -e nginx.pid ] && grep -q 'Server listening' ssh.err; do sleep 0.02; done
echo "ready: nginx"
cat >/dev/null
cd /
rm -rf "$SITE"
