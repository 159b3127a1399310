"""HTTP/1.1 servers, with TLS and without: web.py DIRECTORY CERTIFICATES GOOD EVIL TRAP

GOOD, EVIL and TRAP are comma lists of addresses; each is listened on at ports 80 and 443. GOOD ones have
the certificate good.pem of the directory CERTIFICATES, EVIL ones evil.pem, and TRAP ones, at private
addresses that no sandbox may reach, good.pem again, so that an attack would succeed.
DIRECTORY/requests.jsonl gets a JSON line for every connection and every request.
"""

import asyncio
import base64
import gzip
import hashlib
import json
import os
import ssl
import sys
import urllib.parse

HOME, CERTIFICATES = sys.argv[1:3]
LOG = open(f"{HOME}/requests.jsonl", "a", buffering=1)
# More of a body is summed up, not kept.
KEPT = 65536


class Request:
    """One request, and the connection to answer it on."""

    def __init__(self, reader, writer, sni):
        self.reader, self.writer, self.sni = reader, writer, sni
        self.sent_head = False

    async def head(self):
        text = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = text[:-4].decode("latin-1").split("\r\n")
        self.method, self.target, self.version = first.split(" ", 2)
        self.headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        target = urllib.parse.urlsplit(self.target)
        self.path, self.query = target.path, dict(urllib.parse.parse_qsl(target.query, keep_blank_values=True))

    def header(self, wanted):
        return next((value for name, value in self.headers if name.lower() == wanted), "")

    async def body(self):
        """The body in pieces."""
        if self.header("expect").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in self.header("transfer-encoding").lower():
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            while (await self.reader.readuntil(b"\r\n")) != b"\r\n":
                pass
        else:
            left = int(self.header("content-length") or 0)
            while left:
                piece = await self.reader.read(min(left, 1 << 18))
                if not piece:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(piece)
                yield piece

    async def read(self):
        digest, self.length, self.kept = hashlib.sha256(), 0, b""
        async for piece in self.body():
            digest.update(piece)
            self.length += len(piece)
            self.kept = (self.kept + piece)[:KEPT]
        self.sum = digest.hexdigest()

    def described(self):
        return {
            "method": self.method,
            "target": self.target,
            "headers": self.headers,
            "sni": self.sni,
            "length": self.length,
            "sha256": self.sum,
            "body": self.kept.decode("latin-1"),
        }

    def start(self, status="200 OK", **headers):
        lines = [f"HTTP/1.1 {status}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    def reply(self, body, status="200 OK", type="text/plain", **headers):
        body = body.encode("latin-1") if isinstance(body, str) else body
        self.start(status, content_type=type, content_length=len(body), **headers)
        self.writer.write(body)

    async def chunk(self, piece):
        self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await self.writer.drain()


# ---- what is served, by the start of the path --------------------------------------------------


async def reflect(request):
    """What it got, in its headers and its body; encoded or in small pieces if asked for."""
    headers = {f"x-got-{name.lower()}": value for name, value in request.headers if name.lower() not in HOP}
    body = json.dumps(request.described()).encode()
    if request.query.get("as") == "gzip":
        return request.reply(gzip.compress(body), type="application/json", content_encoding="gzip", **headers)
    if request.query.get("as") != "drip":
        return request.reply(body, type="application/json", **headers)
    request.start(content_type="application/json", transfer_encoding="chunked", **headers)
    for at in range(len(body)):
        await request.chunk(body[at : at + 1])
    request.writer.write(b"0\r\n\r\n")


HOP = {"host", "connection", "transfer-encoding", "content-length", "expect", "upgrade"}


async def blob(request):
    """/blob/LENGTH: as many bytes, with their SHA-256 as a trailer of a chunked response if asked for."""
    left, block = int(request.path.split("/")[2]), hashlib.shake_256(b"blob").digest(1 << 16)
    if request.query.get("as") != "chunked":
        request.start(content_length=left)
        while left > 0:
            request.writer.write(block[:left])
            left -= len(block)
            await request.writer.drain()
        return
    digest = hashlib.sha256()
    request.start(transfer_encoding="chunked", trailer="x-sha256")
    while left > 0:
        digest.update(block[:left])
        await request.chunk(block[:left])
        left -= len(block)
    request.writer.write(b"0\r\nx-sha256: %b\r\n\r\n" % digest.hexdigest().encode())


async def events(request):
    """/sse: three events with what came in Authorization; with ?step=X each waits for a request of /step/X."""
    request.start(content_type="text/event-stream", transfer_encoding="chunked", cache_control="no-cache")
    steps = STEPS.setdefault(request.query.get("step"), asyncio.Semaphore(0))
    for number in range(3):
        if number and "step" in request.query:
            await asyncio.wait_for(steps.acquire(), 30)
        await request.chunk(f"event: tick\nid: {number}\n".encode())
        await request.chunk(f"data: {number} {request.header('authorization')}\n\n".encode())
    request.writer.write(b"0\r\n\r\n")


STEPS = {}


async def step(request):
    STEPS.setdefault(request.path.split("/")[2], asyncio.Semaphore(0)).release()
    request.reply("")


async def completions(request):
    """The part of OpenAI's interface that streams an answer."""
    if not request.header("authorization").startswith("Bearer "):
        return request.reply('{"error": {"message": "no key"}}', "401 Unauthorized", "application/json")
    asked = json.loads(request.kept)

    def part(delta, end=None):
        choice = {"index": 0, "delta": delta, "finish_reason": end}
        return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    request.start(content_type="text/event-stream", transfer_encoding="chunked")
    for word in ["You", " said: ", asked["messages"][-1]["content"]]:
        await request.chunk(f"data: {json.dumps(part({'content': word}))}\n\n".encode())
        await asyncio.sleep(0.02)
    await request.chunk(f"data: {json.dumps(part({}, 'stop'))}\n\ndata: [DONE]\n\n".encode())
    request.writer.write(b"0\r\n\r\n")


async def git(request):
    """git over HTTP, by git's own program. Whoever pushes has to say who he is."""
    if "git-receive-pack" in request.target and not request.header("authorization"):
        return request.reply("who?", "401 Unauthorized", www_authenticate='Basic realm="git"')
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": f"{HOME}/git",
        "GIT_HTTP_EXPORT_ALL": "1",
        "REQUEST_METHOD": request.method,
        "PATH_INFO": request.path.removeprefix("/git"),
        "QUERY_STRING": urllib.parse.urlsplit(request.target).query,
        "CONTENT_TYPE": request.header("content-type"),
        "HTTP_CONTENT_ENCODING": request.header("content-encoding"),
        "GIT_PROTOCOL": request.header("git-protocol"),
        "REMOTE_USER": "guest",
        "HOME": HOME,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    program = await asyncio.create_subprocess_exec(
        "git", "http-backend", env=environment, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await program.communicate(request.kept)
    head, _, body = output.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    request.reply(body, headers.pop("Status", "200 OK"), headers.pop("Content-Type"), **headers)


async def file(request):
    """A file below DIRECTORY/www/HOST, or the index.html of a directory."""
    host = request.header("host").split(":")[0]
    path = os.path.normpath(f"{HOME}/www/{host}/{urllib.parse.unquote(request.path)}")
    for index in ["index.json", "index.html"]:
        path = f"{path}/{index}" if os.path.isfile(f"{path}/{index}") else path
    if not path.startswith(f"{HOME}/www/{host}/") or not os.path.isfile(path):
        return request.reply("not here", "404 Not Found")
    kind = {".html": "text/html", ".json": "application/json"}.get(os.path.splitext(path)[1], "application/octet-stream")
    with open(path, "rb") as content:
        request.reply(content.read(), type=kind)


async def status(request):
    """/status/CODE, with ?location= for redirections."""
    code = request.path.split("/")[2]
    more = {"location": request.query["location"]} if "location" in request.query else {}
    request.reply("", f"{code} Status", **more)


async def challenge(request):
    """Basic authentication, as curl, git and pip use it: says who came in."""
    scheme, _, credentials = request.header("authorization").partition(" ")
    if scheme != "Basic":
        return request.reply("who?", "401 Unauthorized", www_authenticate='Basic realm="x"')
    request.reply(base64.b64decode(credentials))


async def upgrade(request):
    """Answers any upgrade with a switch, then echoes bytes."""
    request.start("101 Switching Protocols", connection="upgrade", upgrade=request.header("upgrade") or "raw")
    while data := await request.reader.read(65536):
        request.writer.write(data)
        await request.writer.drain()


# What servers do that should not: whole responses, as they are. /bad/NAME
BAD = {
    "both-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\nhello",
    "bare-lf": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nhi",
    "folded": b"HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\ncontent-length: 2\r\n\r\nhi",
    "nul": b"HTTP/1.1 200 OK\r\nx-a: b\0c\r\ncontent-length: 2\r\n\r\nhi",
    "huge-head": b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * (4 << 20) + b"\r\ncontent-length: 2\r\n\r\nhi",
    "many-headers": b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 20000 + b"content-length: 2\r\n\r\nhi",
    "short-body": b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhi",
    "bad-chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n",
    "no-http": b"220 mail.good.test ESMTP\r\n",
    "nothing": b"",
    "surprise-switch": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: raw\r\n\r\nhi",
    "informational-flood": b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 10000 + b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    "until-close": b"HTTP/1.0 200 OK\r\n\r\nhi",
}


async def bad(request):
    request.writer.write(BAD[request.path.split("/")[2]])
    await request.writer.drain()
    request.writer.close()


PATHS = {
    "reflect": reflect, "blob": blob, "sse": events, "step": step, "v1": completions, "git": git, "status": status,
    "challenge": challenge, "upgrade": upgrade, "bad": bad,
}  # fmt: skip


async def serve(reader, writer):
    address, port = writer.get_extra_info("sockname")[:2]
    server = {"server": address, "port": port}
    LOG.write(json.dumps({**server, "connected": True}) + "\n")
    tls = writer.get_extra_info("ssl_object")
    try:
        while not writer.is_closing():
            request = Request(reader, writer, getattr(tls, "asked_for", None))
            await request.head()
            handler = PATHS.get(request.path.split("/")[1], file)
            if handler is git:
                # All of it, whatever it is.
                request.kept = b"".join([piece async for piece in request.body()])
                request.length, request.sum = len(request.kept), ""
            elif handler is not upgrade:
                await request.read()
            else:
                request.length, request.sum, request.kept = 0, "", b""
            kept = {**request.described(), "body": request.described()["body"][:KEPT]}
            LOG.write(json.dumps({**server, **kept}) + "\n")
            await handler(request)
            await writer.drain()
            if request.header("connection").lower() == "close" or handler is upgrade:
                break
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ssl.SSLError):
        pass
    except Exception as error:
        LOG.write(json.dumps({**server, "failed": repr(error)}) + "\n")
    finally:
        writer.close()


def context(name):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(f"{CERTIFICATES}/{name}.pem")
    made.set_alpn_protocols(["http/1.1"])
    made.sni_callback = lambda connection, sni, _: setattr(connection, "asked_for", sni)
    return made


async def main():
    for certificate, addresses in zip(["good", "evil", "good"], sys.argv[3:]):
        for address in filter(None, addresses.split(",")):
            await asyncio.start_server(serve, address, 80, backlog=4096, limit=1 << 20)
            await asyncio.start_server(serve, address, 443, ssl=context(certificate), backlog=4096, limit=1 << 20)
    print("ready: web\n" if sys.argv[3] else "ready: own\n", end="", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
