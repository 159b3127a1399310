//! Real machines under a real QEMU, with guests of a few machine instructions; in [`firecracker`], under
//! that.
#![expect(clippy::unwrap_used, reason = "in a test, a failure is the result")]

mod firecracker;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use api::Explain;
use sys::jail::Standing;
use vmm::console::Sink;
use vmm::kernel::{InvalidKernel, Kernels};
use vmm::qemu::Qemu;
use vmm::{Access, Cause, Disk, Link, Machine, MachineSpec, Nic, Pace, VmmError, initramfs};

/// Long enough for a machine to boot on a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

/// A static program of these instructions: an ELF header, one segment that is all of the file.
fn program(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: usize = 64 + 56;
    let size = (HEADERS + code.len()) as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [BASE + HEADERS as u64, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0");
    elf.extend(b"\x01\0\0\0\x05\0\0\0");
    for word in [0, BASE, BASE, size, size, 4096] {
        elf.extend(u64::to_le_bytes(word));
    }
    elf.extend(code);
    elf
}

/// `reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART)`.
const REBOOT: &[u8] = &[
    0xB8, 0xA9, 0, 0, 0, // mov eax, 169
    0xBF, 0xAD, 0xDE, 0xE1, 0xFE, // mov edi, 0xfee1dead
    0xBE, 0x69, 0x19, 0x12, 0x28, // mov esi, 0x28121969
    0xBA, 0x67, 0x45, 0x23, 0x01, // mov edx, 0x1234567
    0x0F, 0x05, // syscall
];

/// `for (;;) pause()`.
const SLEEP: &[u8] = &[0xB8, 34, 0, 0, 0, 0x0F, 0x05, 0xEB, 0xF7];

/// Gives `eth0` the address 10.0.0.2, brings it up, and leaves the rest to the kernel.
const NETWORK: &[u8] = &[
    0xB8, 41, 0, 0, 0, // mov eax, 41 (socket)
    0xBF, 2, 0, 0, 0, // mov edi, AF_INET
    0xBE, 2, 0, 0, 0, // mov esi, SOCK_DGRAM
    0x31, 0xD2, // xor edx, edx
    0x0F, 0x05, // syscall
    0x89, 0xC7, // mov edi, eax
    0xBE, 0x16, 0x89, 0, 0, // mov esi, SIOCSIFADDR
    0x48, 0x8D, 0x15, 35, 0, 0, 0, // lea rdx, [rip + address]
    0xB8, 16, 0, 0, 0, // mov eax, 16 (ioctl)
    0x0F, 0x05, // syscall
    0xBE, 0x14, 0x89, 0, 0, // mov esi, SIOCSIFFLAGS
    0x48, 0x8D, 0x15, 56, 0, 0, 0, // lea rdx, [rip + flags]
    0xB8, 16, 0, 0, 0, // mov eax, 16 (ioctl)
    0x0F, 0x05, // syscall
    0xB8, 34, 0, 0, 0, 0x0F, 0x05, 0xEB, 0xF7, // SLEEP
    b'e', b't', b'h', b'0', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // address: struct ifreq
    2, 0, 0, 0, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'e', b't', b'h', b'0', 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, // flags: IFF_UP
    1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// `exit(3)`, which the kernel does not forgive its first process.
const EXIT: &[u8] = &[0xB8, 60, 0, 0, 0, 0xBF, 3, 0, 0, 0, 0x0F, 0x05];

fn kernel() -> PathBuf {
    if let Some(path) = std::env::var_os("MATCHLOCK_KERNEL") {
        return path.into();
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("MATCHLOCK_CACHE").map_or(home.join(".cache/matchlock"), PathBuf::from);
    let kernel = Kernels::new(cache).default_kernel();
    kernel.expect("a kernel is needed: `matchlock kernel build`, or name one in MATCHLOCK_KERNEL").path
}

fn qemu() -> Qemu {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Qemu::find(&path).expect("QEMU is needed: apt install qemu-system-x86")
}

fn spec(code: &[u8]) -> MachineSpec {
    MachineSpec {
        vcpus: 1,
        memory_mb: 128,
        pace: Pace::Sprint,
        kernel: kernel(),
        initramfs: initramfs::with_init(&program(code)),
        disks: Vec::new(),
        nic: None,
        directory: std::env::temp_dir(),
        console: None,
    }
}

async fn boot(spec: MachineSpec) -> Machine {
    qemu().boot(spec).await.unwrap()
}

/// Waits until the guest's first process runs, which a kernel says on its way down only: so until
/// it has used some time and settles.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_guest_that_reboots_ends_its_machine() {
    for vcpus in [1, 2] {
        let machine = boot(MachineSpec { vcpus, memory_mb: 64, ..spec(REBOOT) }).await;
        let layers = machine.layers();
        assert!(layers.iter().all(|layer| !matches!(layer.standing, Standing::Missing(_))), "{layers:?}");
        let exit = tokio::time::timeout(PATIENCE, machine.exited()).await.unwrap();
        assert_eq!(exit.cause, Cause::Shutdown, "{exit}");
        assert!(exit.console_tail.contains("reboot: "), "{}", exit.console_tail);
        assert_eq!(exit.vmm_stderr, "");
        assert!(matches!(machine.channel().ended().await, vmm::ChannelError::Gone));
    }
}

#[tokio::test]
async fn a_panic_is_told_by_the_console_and_its_sink() {
    let (sent, received) = std::sync::mpsc::channel();
    let sink: Sink = Box::new(move |bytes| sent.send(bytes.to_vec()).unwrap());
    let machine = boot(MachineSpec { console: Some(sink), ..spec(EXIT) }).await;
    let exit = tokio::time::timeout(PATIENCE, machine.exited()).await.unwrap();
    assert!(exit.console_tail.contains("Attempted to kill init"), "{}", exit.console_tail);
    assert!(exit.hint().unwrap().contains("panicked"));
    let said: Vec<u8> = received.try_iter().flatten().collect();
    assert!(String::from_utf8_lossy(&said).contains("Kernel panic"));
}

#[tokio::test]
async fn stopping_asks_the_monitor_and_killing_does_not() {
    let machine = boot(spec(SLEEP)).await;
    let start = Instant::now();
    assert_eq!(machine.stop(PATIENCE).await.cause, Cause::Shutdown);
    assert!(start.elapsed() < PATIENCE);
    let machine = boot(spec(SLEEP)).await;
    assert_eq!(machine.kill().await.cause, Cause::Killed);
    let machine = boot(spec(SLEEP)).await;
    let process = PathBuf::from(format!("/proc/{}", machine.pid()));
    assert!(process.exists());
    drop(machine);
    assert!(!process.exists(), "not even a zombie is left");
}

#[tokio::test]
async fn a_vmm_that_fails_at_once_says_why() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let disk = Disk { serial: "scratch".to_owned(), file, access: Access::Scratch };
    let machine = boot(MachineSpec { disks: vec![disk], ..spec(SLEEP) }).await;
    let exit = tokio::time::timeout(PATIENCE, machine.exited()).await.unwrap();
    assert_eq!(exit.cause, Cause::Failed(1));
    assert!(exit.to_string().contains("qemu-system-x86_64: -blockdev"), "{exit}");
}

#[tokio::test]
async fn what_cannot_be_booted_is_refused_before_anything_starts() {
    let refused = async |spec| qemu().boot(spec).await.unwrap_err();
    let disk = |serial: &str| {
        let file = std::fs::File::open("/dev/null").unwrap();
        Disk { serial: serial.to_owned(), file, access: Access::ReadOnly }
    };
    let error = refused(MachineSpec { memory_mb: 16, ..spec(SLEEP) }).await;
    assert!(matches!(error, VmmError::TooLittleMemory { asked: 16, .. }));
    assert!(error.hint().unwrap().contains("--memory 64"));
    assert!(matches!(
        refused(MachineSpec { vcpus: 0, ..spec(SLEEP) }).await,
        VmmError::Vcpus { asked: 0, .. }
    ));
    for serials in [vec![""], vec!["a", "a"], vec!["a,readonly=off"], vec!["123456789012345678901"]] {
        let disks = serials.iter().map(|serial| disk(serial)).collect();
        assert!(matches!(refused(MachineSpec { disks, ..spec(SLEEP) }).await, VmmError::Serial(_)));
    }
    let disks = (0..23).map(|number| disk(&number.to_string())).collect();
    assert!(matches!(refused(MachineSpec { disks, ..spec(SLEEP) }).await, VmmError::TooManyDisks { .. }));
    let disks = (0..22).map(|number| disk(&number.to_string())).collect();
    let nic = Some(Nic { mac: [2, 0, 0, 0, 0, 1], mtu: 1500 });
    let error = refused(MachineSpec { disks, nic, ..spec(SLEEP) }).await;
    assert!(matches!(error, VmmError::TooManyDisks { most: 21, .. }), "an interface takes a disk's place");
    let wrong = MachineSpec { kernel: "/bin/true".into(), ..spec(SLEEP) };
    assert!(matches!(refused(wrong).await, VmmError::Kernel { source: InvalidKernel::NotExecutable, .. }));
    let error = Qemu::find(OsStr::new("/nowhere")).unwrap_err();
    assert!(error.hint().unwrap().contains("apt install qemu-system-x86"));
}

/// The guest's answer to an ARP request: so frames go both ways, and the interface is as it was asked for.
#[tokio::test]
async fn frames_go_over_the_socket_with_their_length_before_them() {
    const GUEST: [u8; 6] = [2, 0x6D, 0x61, 0x74, 0x63, 0x68];
    const US: [u8; 6] = [2, 0x6D, 0x61, 0x74, 0x63, 1];
    let nic = Some(Nic { mac: GUEST, mtu: 65520 });
    let mut machine = boot(MachineSpec { nic, ..spec(NETWORK) }).await;
    let Some(Link::Stream(mut cable)) = machine.take_link() else { panic!("QEMU's cable is a stream") };
    assert!(machine.take_link().is_none());
    cable.set_read_timeout(Some(PATIENCE)).unwrap();
    let exchange = move || {
        let mut asked = false;
        loop {
            let mut length = [0; 4];
            cable.read_exact(&mut length).unwrap();
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            cable.read_exact(&mut frame).unwrap();
            assert_eq!(frame[6..12], GUEST);
            if frame[12..14] == [8, 6] {
                return frame;
            }
            if !std::mem::replace(&mut asked, true) {
                // The kernel has said something of its own accord (IPv6), so the interface is up.
                let ask = [&[255; 6], &US[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &US, &[10, 0, 0, 1]].concat();
                let ask = [&ask[..], &[0; 6], &[10, 0, 0, 2]].concat();
                let length = u32::try_from(ask.len()).unwrap();
                cable.write_all(&[&length.to_be_bytes()[..], &ask].concat()).unwrap();
            }
        }
    };
    let answer = tokio::task::spawn_blocking(exchange).await;
    let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", machine.console_tail()));
    assert_eq!(answer[..6], US);
    let reply = [&[0, 1, 8, 0, 6, 4, 0, 2], &GUEST[..], &[10, 0, 0, 2], &US, &[10, 0, 0, 1]].concat();
    assert_eq!(answer[14..42], reply);
}

/// The jail, seen from the host while a guest runs.
#[tokio::test]
async fn qemu_runs_behind_its_walls() {
    let machine = boot(spec(SLEEP)).await;
    settle().await;
    let process = Path::new("/proc").join(machine.pid().to_string());
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("CapEff:"), "0000000000000000");
    assert_eq!(field("Seccomp:"), "2");
    let filters: u32 = field("Seccomp_filters:").parse().unwrap();
    assert!(filters >= 2, "ours and QEMU's own");
    assert_ne!(field("Uid:").split_whitespace().next(), Some("0"));
    assert_eq!(std::fs::read(process.join("environ")).unwrap_or_default(), b"");
    for namespace in ["net", "pid", "ipc", "uts"] {
        let of = |process: &Path| std::fs::read_link(process.join("ns").join(namespace)).unwrap();
        assert_ne!(of(&process), of(Path::new("/proc/self")), "{namespace}");
    }
    let open = std::fs::read_dir(process.join("fd")).unwrap().map(|entry| entry.unwrap().path());
    for target in open.map(|link| std::fs::read_link(link).unwrap()) {
        let target = target.to_str().unwrap();
        let known = ["socket:", "pipe:", "anon_inode:", "/memfd:", "/dev/null", kernel().to_str().unwrap()]
            .iter()
            .any(|known| target.starts_with(known));
        assert!(known, "{target}");
    }
}

#[tokio::test]
async fn a_vmm_dies_with_an_owner_that_is_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pid =
        lines.map(|line| line.rsplit("QEMU ").next().unwrap().parse::<u32>()).find_map(Result::ok).unwrap();
    let process = PathBuf::from(format!("/proc/{pid}"));
    assert!(process.exists());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let start = Instant::now();
    // The host's first process reaps it: a zombie has no command line any more.
    while std::fs::read(process.join("cmdline")).is_ok_and(|line| !line.is_empty()) {
        assert!(start.elapsed() < Duration::from_secs(10), "QEMU outlived its owner");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
#[ignore = "the process that a_vmm_dies_with_an_owner_that_is_killed starts and kills"]
async fn owner() {
    let machine = boot(spec(SLEEP)).await;
    println!("QEMU {}", machine.pid());
    tokio::time::sleep(PATIENCE).await;
}
