"""A name server, over UDP and TCP: dns.py ZONE LOG ADDRESS...

ZONE is a JSON file, read again for every query, so that answers can change: a name (or *.name) gives
{"A": [..], "AAAA": [..], "CNAME": "..", "TXT": [..], "ttl": 60}, or a list of such objects that are
answered in turns, the last one again and again. LOG gets a JSON line for every query. A name that is
not in the zone does not exist.
"""

import asyncio
import ipaddress
import json
import struct
import sys

TYPES = {"A": 1, "CNAME": 5, "TXT": 16, "AAAA": 28}
NAMES = {number: name for name, number in TYPES.items()} | {65: "HTTPS", 255: "ANY"}


class Server:
    def __init__(self, zone, log):
        self.zone, self.log, self.turns = zone, open(log, "a", buffering=1), {}

    def answer(self, query, server, transport):
        try:
            name, kind, question = parse(query)
        except (IndexError, ValueError, struct.error) as error:
            self.write(server, transport, f"malformed: {error}", "?")
            return None
        self.write(server, transport, name, NAMES.get(kind, str(kind)))
        records, known = self.records(name, NAMES.get(kind, "?"))
        # Recursive, as resolvers of users are.
        head = struct.pack("!HHHHHH", *struct.unpack("!H", query[:2]), 0x8180 | (0 if known else 3), 1, len(records), 0, 0)
        return head + question + b"".join(records)

    def write(self, server, transport, name, kind):
        self.log.write(json.dumps({"server": server, "transport": transport, "name": name, "type": kind}) + "\n")

    def records(self, name, kind):
        """The records of a name, and whether there is one."""
        records = []
        for _ in range(8):
            entry = self.entry(name, kind)
            if entry is None:
                return records, bool(records)
            ttl = entry.get("ttl", 60)
            if "CNAME" in entry:
                records.append(record(name, "CNAME", ttl, encode(entry["CNAME"])))
                name = entry["CNAME"]
                continue
            for value in entry.get(kind, []):
                records.append(record(name, kind, ttl, data(kind, value)))
            break
        return records, True

    def entry(self, name, kind):
        with open(self.zone) as file:
            zone = json.load(file)
        labels = name.lower().split(".")
        candidates = [name.lower()] + ["*." + ".".join(labels[start:]) for start in range(1, len(labels))]
        found = next((zone[candidate] for candidate in candidates if candidate in zone), None)
        if isinstance(found, list):
            turn = self.turns.get((name, kind), 0)
            self.turns[name, kind] = turn + 1
            return found[min(turn, len(found) - 1)]
        return found


def parse(query):
    """The name and the type that are asked for, and the bytes of the question."""
    if len(query) < 17 or struct.unpack("!H", query[4:6])[0] != 1:
        raise ValueError("no single question")
    labels, at = [], 12
    while length := query[at]:
        if length > 63:
            raise ValueError("compressed")
        labels.append(query[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    (kind,) = struct.unpack("!H", query[at + 1 : at + 3])
    return ".".join(labels), kind, query[12 : at + 5]


def encode(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def data(kind, value):
    if kind == "TXT":
        return bytes([len(value)]) + value.encode()
    return ipaddress.ip_address(value).packed


def record(name, kind, ttl, content):
    return encode(name) + struct.pack("!HHIH", TYPES[kind], 1, ttl, len(content)) + content


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server, address):
        self.server, self.address = server, address

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, query, client):
        if answer := self.server.answer(query, self.address, "udp"):
            self.transport.sendto(answer, client)


async def main():
    server = Server(sys.argv[1], sys.argv[2])

    async def stream(reader, writer):
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                query = await reader.readexactly(length)
                answer = server.answer(query, writer.get_extra_info("sockname")[0], "tcp")
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, TypeError):
            writer.close()

    for address in sys.argv[3:]:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda address=address: Datagrams(server, address), (address, 53))
        await asyncio.start_server(stream, address, 53)
    print("ready: dns\n", end="", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
