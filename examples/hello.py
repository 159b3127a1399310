"""What a program sees in a Matchlock sandbox: a machine of its own."""

import os


def first_line(path):
    with open(path) as file:
        return file.readline().strip()


system = os.uname()
print(f"kernel    {system.sysname} {system.release}, host name {system.nodename}")
print(f"PID 1     {first_line('/proc/1/comm')} (this program is PID {os.getpid()})")
print(f"memory    {first_line('/proc/meminfo').split(':')[1].strip()}, {os.cpu_count()} CPU")
print(f"system    {first_line('/etc/os-release').split('=')[1].strip(chr(34))}")
print(f"files     {' '.join(sorted(os.listdir('/')))}")

with open("/etc/written-by-the-sandbox", "w") as file:
    file.write("gone with the sandbox\n")
print("wrote     /etc/written-by-the-sandbox, which the host never sees")
print(f"6 * 7 =   {6 * 7}")
