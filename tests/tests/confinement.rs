//! What a command in the sandbox cannot do, and what `--privileged` gives back.

use harness::cache::{BUSYBOX, DEBIAN_PYTHON};
use harness::{Matchlock, Sandbox};

fn sh(matchlock: &Matchlock, flags: &[&str], line: &str) -> String {
    let mut arguments = vec!["run", "--image", BUSYBOX];
    arguments.extend(flags);
    arguments.extend(["--", "sh", "-c", line]);
    matchlock.run(&arguments).stdout_text()
}

#[test]
fn a_command_sees_only_its_own_processes() {
    let matchlock = Matchlock::new();
    let processes = sh(&matchlock, &[], "ls -d /proc/[0-9]* | wc -l; ps -o comm");
    let count: u32 = processes.lines().next().unwrap().trim().parse().unwrap();
    assert!(count <= 4, "{processes}");
}

#[test]
fn capabilities_are_few_and_no_program_gains_any() {
    let matchlock = Matchlock::new();
    let status = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'";
    let root = sh(&matchlock, &[], status);
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
    assert!(root.contains("CapEff:00000000800405fb"), "{root}");
    assert!(root.contains("CapBnd:00000000800405fb"), "{root}");
    assert!(root.contains("NoNewPrivs:1") && root.contains("Seccomp:2"), "{root}");
    let user = sh(&matchlock, &["-u", "user"], status);
    assert!(user.contains("CapEff:0000000000000000"), "{user}");
    let privileged = sh(&matchlock, &["--privileged"], status);
    assert!(privileged.contains("CapEff:000001ffffffffff"), "{privileged}");
    assert!(privileged.contains("NoNewPrivs:0") && privileged.contains("Seccomp:0"), "{privileged}");
}

#[test]
fn the_kernel_cannot_be_changed_from_inside() {
    let matchlock = Matchlock::new();
    let attempts = [
        "mount -t tmpfs none /mnt || mount -t tmpfs none /tmp",
        "umount /proc",
        "echo x > /proc/sys/kernel/hostname",
        "echo b > /proc/sysrq-trigger",
        "echo 1 > /sys/kernel/profiling",
        "unshare -m true",
        "unshare -r true",
        "mknod /tmp/vda b 254 0 && dd if=/tmp/vda of=/dev/null count=1",
        "ls /dev/vda",
        "ls /dev/vport*",
        "reboot -f",
        "swapoff -a",
        // busybox exits with 0 whatever came of it
        "date -s 2001-01-01; date | grep 2001",
        "hostname other",
        "chroot /proc/1/root ls /init",
        "nsenter -t 1 -m true",
    ];
    for attempt in attempts {
        let output =
            sh(&matchlock, &[], &format!("({attempt}) >/dev/null 2>&1 && echo done || echo refused"));
        assert_eq!(output, "refused\n", "{attempt}");
    }
}

#[test]
fn privileged_commands_can_mount_and_see_the_devices() {
    let matchlock = Matchlock::new();
    let line = "mkdir /m && mount -t tmpfs none /m && touch /m/x && ls /m && unshare -m true && ls /dev/vda";
    assert_eq!(sh(&matchlock, &["--privileged"], line), "x\n/dev/vda\n");
}

#[test]
fn setuid_programs_gain_nothing() {
    let matchlock = Matchlock::new();
    let script = "import os, subprocess; os.chmod('/usr/bin/id', 0o4755); \
                  print(subprocess.run(['/usr/bin/id', '-u'], user=1000, capture_output=True, text=True).stdout)";
    let output = matchlock.run(&["run", "--image", DEBIAN_PYTHON, "--", "python3", "-c", script]).success();
    assert_eq!(output.stdout_text().trim(), "1000");
}

#[test]
fn the_standard_devices_work() {
    let matchlock = Matchlock::new();
    let line = "echo x > /dev/null && head -c 3 /dev/zero | od -An -tx1 && echo y | cat /dev/stdin && \
                echo z > /dev/shm/z && cat /dev/shm/z && ls /dev/fd/ >/dev/null && test -c /dev/urandom && \
                test -c /dev/tty && test -e /dev/ptmx && echo all";
    assert_eq!(sh(&matchlock, &[], line), " 00 00 00\ny\nz\nall\n");
}

/// All commands share one `/dev`, which root can write to.
#[test]
fn what_a_command_puts_in_place_of_dev_null_gets_nowhere_else() {
    let matchlock = Matchlock::new();
    let sandbox = Sandbox::start(&matchlock, BUSYBOX, &[]);
    for replace in ["ln -sf /etc/passwd /dev/null", "rm /dev/null", "mkfifo /dev/null"] {
        let _ = sandbox.sh(replace).success();
        let after = sandbox.sh("cat /proc/interrupts; echo well").success();
        assert_eq!(after.stdout_text(), "well\n", "{replace}");
    }
}

/// A task can keep three numbers to itself: its own, and those that lived as its group's and its session's.
#[test]
fn the_agent_has_process_numbers_left_however_many_processes_a_vm_may_have() {
    let matchlock = Matchlock::new();
    let limits = "cat /sys/fs/cgroup/pids.max /proc/sys/kernel/pid_max";
    for memory in ["512", "2048"] {
        let limits = sh(&matchlock, &["--memory", memory], limits);
        let limits: Vec<u64> = limits.lines().map(|limit| limit.parse().unwrap()).collect();
        assert!(3 * (limits[0] + 1024) <= limits[1], "{limits:?} with {memory} MiB");
    }
}
