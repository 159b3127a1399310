"""What the servers of a site have to give: content.py DIRECTORY

Names, a Python wheel in an index, a package in an npm registry, and a git repository.
"""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile

os.chdir(sys.argv[1])

NGINX, WEB, GRPC, WEBSOCKET, TCP, EVIL = (f"45.33.7.{last}" for last in range(10, 16))
WEB6, EVIL6 = "2600:45:33:7::11", "2600:45:33:7::15"


def a(*addresses, **more):
    return {"A": list(addresses), **more}


ZONE = {
    **{name: a(NGINX) for name in ["www.good.test", "api.good.test", "cdn.evil.test"]},
    **{name: a(WEB, AAAA=[WEB6]) for name in ["web.good.test", "other.good.test"]},
    **{name: a(WEB) for name in ["pypi.good.test", "npm.good.test", "git.good.test", "openai.good.test"]},
    "six.good.test": {"AAAA": [WEB6]},
    "grpc.good.test": a(GRPC),
    "ws.good.test": a(WEBSOCKET),
    **{name: a(TCP) for name in ["tcp.good.test", "ssh.good.test"]},
    "wrong.good.test": a("45.33.7.16"),
    "text.good.test": a(WEB, TXT=["some text"]),
    "alias.good.test": {"CNAME": "www.good.test"},
    "evil.test": a(EVIL, AAAA=[EVIL6]),
    "*.evil.test": a(EVIL, AAAA=[EVIL6]),
    # Allowed names with addresses that are nobody's business.
    "loopback.good.test": a("127.0.0.1", AAAA=["::1"]),
    "zero.good.test": a("0.0.0.0", AAAA=["::"]),
    "ten.good.test": a("10.66.0.1"),
    "metadata.good.test": a("169.254.169.254"),
    "shared.good.test": a("100.64.66.1"),
    "self.good.test": a("45.33.8.2", AAAA=["2600:45:33:8::2"]),
    "inside.good.test": a("10.77.0.1"),
    "unique.good.test": {"AAAA": ["fd00:66::1"]},
    "link.good.test": {"AAAA": ["fe80::1"]},
    "mapped.good.test": {"AAAA": ["::ffff:10.66.0.1", "::ffff:127.0.0.1"]},
    "nat64.good.test": {"AAAA": ["64:ff9b::a42:1", "64:ff9b::7f00:1"]},
    "sixtofour.good.test": {"AAAA": ["2002:a42:1::1"]},
    "multicast.good.test": a("224.0.0.1", "255.255.255.255", AAAA=["ff02::1"]),
    "mixed.good.test": a("10.66.0.1", WEB, "127.0.0.1"),
    "chain.good.test": {"CNAME": "step.evil.test"},
    "step.evil.test": {"CNAME": "end.evil.test"},
    "end.evil.test": a("10.66.0.1"),
    # The first answer is fine, the next ones are not.
    "rebind.good.test": [a(WEB, ttl=0), a("10.66.0.1", ttl=0), a("127.0.0.1", ttl=0)],
    "flip.good.test": [a("127.0.0.1", ttl=0), a(WEB, ttl=0)],
}


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def wheel():
    """A wheel of one module, and its page in an index."""
    files = {
        "lockpick.py": b"VALUE = 'installed from the index'\n",
        "lockpick-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: lockpick\nVersion: 1.0\n",
        "lockpick-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files["lockpick-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in files).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    name, content = "lockpick-1.0-py3-none-any.whl", packed.getvalue()
    link = f'<a href="/files/{name}#sha256={hashlib.sha256(content).hexdigest()}">{name}</a>'
    write(f"www/pypi.good.test/files/{name}", content)
    write("www/pypi.good.test/simple/lockpick/index.html", f"<!DOCTYPE html><html><body>{link}</body></html>")


def package():
    """A package of one module, and what a registry says of it."""
    manifest = {"name": "lockpick", "version": "1.0.0", "main": "index.js"}
    files = {"package.json": json.dumps(manifest), "index.js": "module.exports = 'installed from the registry'"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    content, url = packed.getvalue(), "lockpick/-/lockpick-1.0.0.tgz"
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    distribution = {"tarball": f"https://npm.good.test/{url}", "integrity": integrity}
    versions = {"1.0.0": {**manifest, "dist": distribution}}
    about = {"name": "lockpick", "dist-tags": {"latest": "1.0.0"}, "versions": versions}
    write("www/npm.good.test/lockpick/index.json", json.dumps(about))
    write(f"www/npm.good.test/{url}", content)


def repository():
    """A repository with a file of some megabytes that git cannot make small."""
    environment = {
        **os.environ, "HOME": os.getcwd(), "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@good.test",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@good.test",
    }  # fmt: skip

    def git(*words):
        subprocess.run(["git", "-C", "git/repo.git", *words], env=environment, check=True, stdout=subprocess.DEVNULL)

    os.makedirs("git/repo.git")
    write("git/repo.git/README", "from the repository\n")
    write("git/repo.git/noise", hashlib.shake_256(b"noise").digest(3 << 20))
    git("init", "--quiet", "--initial-branch=main")
    git("add", ".")
    git("commit", "--quiet", "--message=all")
    git("config", "http.receivepack", "true")
    git("config", "receive.denyCurrentBranch", "ignore")


write("./zone.json", json.dumps(ZONE))
wheel()
package()
repository()
