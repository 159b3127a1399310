"""What runs in the lab, as root: measures on a KVM that works and prints one JSON object of seconds and KiB.

Arguments: cold or running, rounds. /tmp/initramfs is one that reboots at once. Everything is taken in turns.
"""

import http.server
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time

PART, ROUNDS = sys.argv[1], int(sys.argv[2])
ADDRESS, SIZE = "45.33.7.10", 128 << 20
LAB = {"user": "lab", "group": "lab", "extra_groups": ["kvm"], "cwd": "/home/lab"}
ENVIRONMENT = {**os.environ, "HOME": "/home/lab", "USER": "lab"}


def run(*words, **options):
    """Runs a program as the user, and gives its standard output."""
    options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "stdout": subprocess.PIPE, **options}
    done = subprocess.run(words, env=ENVIRONMENT, text=True, **LAB, **options)
    if done.returncode != 0:
        sys.exit(f"{words}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def timed(*words):
    start = time.monotonic()
    run(*words)
    return time.monotonic() - start


def in_turns(rounds, **ways):
    """The medians of all ways, taken in turns after a first turn that does not count."""
    times = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            took = way()
            if turn:
                times[name].append(took)
    return {name: statistics.median(took) for name, took in times.items()}


def cold():
    """A cold start, beside the least that Firecracker needs to boot the same kernel and end again."""
    kernels = json.loads(run("matchlock", "kernel", "ls", "--json"))
    configuration = {
        "boot-source": {
            "kernel_image_path": next(kernel["path"] for kernel in kernels if kernel["default"]),
            "initrd_path": "/tmp/initramfs",
            # What Firecracker itself says if it is not told, or else the kernel looks half a second for a keyboard.
            "boot_args": "reboot=k panic=-1 pci=off i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd "
            "console=ttyS0 quiet rdinit=/busybox -- reboot -f",
        },
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 512},
    }
    with open("/tmp/bare.json", "w") as file:
        json.dump(configuration, file)
    ours = lambda backend: timed("matchlock", "run", "--backend", backend, "--image", "busybox", "--", "true")
    return in_turns(
        ROUNDS,
        bare=lambda: timed("firecracker", "--no-api", "--config-file", "/tmp/bare.json"),
        firecracker=lambda: ours("firecracker"),
        qemu=lambda: ours("qemu"),
    )


class Server(http.server.BaseHTTPRequestHandler):
    """Gives and takes bytes."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        self.wfile.flush()
        with open("/tmp/zeros", "rb") as file:
            self.connection.sendfile(file)

    def log_message(self, *_):
        pass


def sink(listener):
    while True:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1 << 18):
                pass


def serve():
    for words in (["link", "add", "public", "type", "dummy"], ["address", "add", f"{ADDRESS}/32", "dev", "public"]):
        subprocess.run(["ip", *words], check=True)
    subprocess.run(["ip", "link", "set", "public", "up"], check=True)
    with open("/tmp/zeros", "wb") as file:
        file.truncate(SIZE)
    server = http.server.ThreadingHTTPServer((ADDRESS, 8080), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=sink, args=(socket.create_server((ADDRESS, 9)),), daemon=True).start()


def memory(pid, guest):
    """The proportional share of a process without the guest's memory, KiB."""
    share, counted = 0, True
    with open(f"/proc/{pid}/smaps") as file:
        for line in file:
            name, *rest = line.split()
            if name == "Size:":
                counted = int(rest[0]) < guest
            elif name == "Pss:" and counted:
                share += int(rest[0])
    return share


def running():
    serve()
    ids = {}
    for backend in ("firecracker", "qemu"):
        flags = ["--backend", backend, "--allow-host", ADDRESS, "--image", "busybox"]
        ids[backend] = run("matchlock", "run", "-d", *flags, "--", "sleep", "100000").strip()
    exec_ = lambda backend, line: lambda: timed("matchlock", "exec", ids[backend], "--", "sh", "-c", line)
    down = f"wget -q -O /dev/null http://{ADDRESS}:8080/"
    up = f"dd if=/dev/zero bs=1M count={SIZE >> 20} 2>/dev/null | nc {ADDRESS} 9"
    figures = {}
    for name, line in (("nothing", "true"), ("down", down), ("up", up)):
        figures[name] = in_turns(ROUNDS, **{backend: exec_(backend, line) for backend in ids})
    figures["memory"] = {}
    for backend, id in ids.items():
        resources = json.loads(run("matchlock", "inspect", id))["lifecycle"]["resources"]
        vmm = next(resource["pid"] for resource in resources if resource["kind"] == "process")
        figures["memory"][backend] = memory(vmm, 512 * 1024)
    run("matchlock", "kill", "--all")
    return figures


run("matchlock", "image", "import", "busybox", stdin=open("/tmp/busybox.tar"))
print(json.dumps({"cold": cold, "running": running}[PART]()))
