"""What attacks in a sandbox are made of: raw sockets, TLS that checks nothing, handshakes by hand."""

import http.client
import json
import os
import socket
import ssl
import struct
import sys

NGINX, WEB, TCP, EVIL = "45.33.7.10", "45.33.7.11", "45.33.7.14", "45.33.7.15"


def known(name):
    """Looks a name up, without which its addresses are those of nobody."""
    socket.getaddrinfo(name, 443)


def plain(address, port=80):
    return socket.create_connection((address, port), timeout=10)


def tls(address, name, *protocols, port=443):
    """TLS to an address, for the server name; None for no server name."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if protocols:
        context.set_alpn_protocols(protocols)
    return context.wrap_socket(plain(address, port), server_hostname=name)


def send(connection, text):
    connection.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))
    return connection


def answer(connection):
    """The status and the body of one response."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    return f"{response.status} {response.read().decode('latin-1')}"


def get(host, path="/who", more=""):
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n"


def vector(size, content):
    return len(content).to_bytes(size, "big") + content


def extension(kind, content):
    return struct.pack("!H", kind) + vector(2, content)


def client_hello(name, *more):
    """A ClientHello with the bytes `name` as its server name (None for none), and more extensions."""
    extensions = [
        extension(0x0A, vector(2, struct.pack("!H", 0x1D))),
        extension(0x0D, vector(2, struct.pack("!HHHH", 0x0403, 0x0804, 0x0401, 0x0503))),
        extension(0x2B, vector(1, struct.pack("!H", 0x0304))),
        extension(0x33, vector(2, struct.pack("!H", 0x1D) + vector(2, os.urandom(32)))),
        *more,
    ]
    if name is not None:
        extensions.append(extension(0, vector(2, b"\0" + vector(2, name))))
    suites = struct.pack("!HHH", 0x1301, 0x1302, 0x1303)
    body = b"\x03\x03" + os.urandom(32) + vector(1, os.urandom(32)) + vector(2, suites) + b"\x01\0"
    hello = b"\x01" + vector(3, body + vector(2, b"".join(extensions)))
    return b"\x16\x03\x01" + vector(2, hello)


def shaken(address, hello, port=443):
    """What a server says to a handshake: hello, alert, end, or reset."""
    connection = send(plain(address, port), hello)
    first = connection.recv(1)
    return {b"\x16": "hello", b"\x15": "alert", b"": "end"}.get(first, f"other {first!r}")


def question(name, kind, head=b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"):
    """A DNS query; the labels of `name` may hold any bytes."""
    name = name if isinstance(name, bytes) else name.encode()
    labels = b"".join(vector(1, label) for label in name.split(b".")) if name else b""
    return head + labels + b"\0" + struct.pack("!HH", kind, 1)


def ask(server, query, over_tcp=False, port=53):
    """A name server's answer: its code and how many records, or none."""
    if over_tcp:
        connection = send(plain(server, port), vector(2, query))
        answer = connection.recv(2) and connection.recv(65535)
    else:
        connection = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM)
        connection.settimeout(3)
        connection.sendto(query, (server, port))
        answer = connection.recv(65535)
    if len(answer or b"") < 12:
        return "end"
    (flags, _, answers) = struct.unpack("!HHH", answer[2:8])
    return f"code {flags & 15}, {answers} answers, {answer[12:]!r}"


def attempt(name, what):
    """Prints what came of it, a line."""
    try:
        came = what()
    except (OSError, http.client.HTTPException, ValueError) as error:
        came = f"error {type(error).__name__}: {error}"
    print(f"{name} => {came!r}" if isinstance(came, bytes) else f"{name} => {came}".replace("\n", " "), flush=True)
