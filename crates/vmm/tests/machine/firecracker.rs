//! Real machines under a real Firecracker. They need KVM, so they are run in the lab, by the end-to-end test
//! `lab_machine`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::jail::{Standing, Wall};
use tempfile::TempDir;
use vmm::firecracker::Firecracker;
use vmm::{Cause, Disk, Link, Machine, MachineSpec, Nic, VmmError};

use super::{Access, EXIT, Explain, PATIENCE, REBOOT, SLEEP, spec};

/// `jmp $`.
const SPIN: &[u8] = &[0xEB, 0xFE];

/// `socket(AF_VSOCK, SOCK_STREAM, 0)`, `connect` to port 5000 of the host, and a reboot if that was refused,
/// else [`SPIN`].
const CALL: &[u8] = &[
    0xB8, 41, 0, 0, 0, // mov eax, 41 (socket)
    0xBF, 40, 0, 0, 0, // mov edi, AF_VSOCK
    0xBE, 1, 0, 0, 0, // mov esi, SOCK_STREAM
    0x31, 0xD2, // xor edx, edx
    0x0F, 0x05, // syscall
    0x89, 0xC7, // mov edi, eax
    0x48, 0x8D, 0x35, 48, 0, 0, 0, // lea rsi, [rip + address]
    0xBA, 16, 0, 0, 0, // mov edx, 16
    0xB8, 42, 0, 0, 0, // mov eax, 42 (connect)
    0x0F, 0x05, // syscall
    0x85, 0xC0, // test eax, eax
    0x75, 0x02, // jnz +2
    0xEB, 0xFE, // jmp $
    0xB8, 0xA9, 0, 0, 0, 0xBF, 0xAD, 0xDE, 0xE1, 0xFE, 0xBE, 0x69, 0x19, 0x12, 0x28, // REBOOT
    0xBA, 0x67, 0x45, 0x23, 0x01, 0x0F, 0x05, // and the end of it
    40, 0, 0, 0, 0x88, 0x13, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, // struct sockaddr_vm
];

fn firecracker() -> Firecracker {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Firecracker::find(&path).expect("Firecracker and KVM are needed: see scripts/lab-tests")
}

/// A machine, and the folder that it may use.
async fn boot(code: &[u8], change: impl FnOnce(MachineSpec) -> MachineSpec) -> (Machine, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let spec = MachineSpec { directory: directory.path().to_owned(), ..spec(code) };
    (firecracker().boot(change(spec)).await.unwrap(), directory)
}

async fn ended(machine: &Machine) -> vmm::Exit {
    tokio::time::timeout(PATIENCE, machine.exited()).await.unwrap()
}

#[tokio::test]
#[ignore = "needs KVM"]
async fn a_guest_that_reboots_or_panics_ends_its_machine() {
    for (code, vcpus, said) in [(REBOOT, 2, "reboot: "), (EXIT, 1, "Attempted to kill init")] {
        let (machine, directory) = boot(code, |spec| MachineSpec { vcpus, ..spec }).await;
        let exit = ended(&machine).await;
        assert_eq!(exit.cause, Cause::Shutdown, "{exit}");
        assert!(exit.console_tail.contains(said), "{}", exit.console_tail);
        assert_eq!(exit.vmm_stderr, "");
        assert!(matches!(machine.channel().ended().await, vmm::ChannelError::Gone));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "no socket is left");
    }
}

/// Ticks of CPU time that the VMM's process has used.
fn ticks(machine: &Machine) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", machine.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[tokio::test]
#[ignore = "needs KVM"]
async fn a_paused_machine_does_nothing_until_it_is_resumed() {
    let (machine, _directory) = boot(SPIN, |spec| spec).await;
    let api = machine.firecracker().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    api.pause().await.unwrap();
    let paused = ticks(&machine);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ticks(&machine) <= paused + 2, "{} after {paused}", ticks(&machine));
    api.resume().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ticks(&machine) > paused + 10, "{} after {paused}", ticks(&machine));
    // Where it may not write, it saves nothing, says why and goes on.
    api.pause().await.unwrap();
    let refused = api.snapshot(Path::new("/tmp/state"), Path::new("/tmp/memory")).await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    assert!(!Path::new("/tmp/state").exists());
    api.resume().await.unwrap();
    assert_eq!(machine.kill().await.cause, Cause::Killed);
}

/// The jail, seen from the host while a guest runs.
#[tokio::test]
#[ignore = "needs KVM"]
async fn firecracker_runs_behind_its_walls() {
    let disk = |serial: &str, access| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        Disk { serial: serial.to_owned(), file, access }
    };
    let nic = Some(Nic { mac: [2, 0, 0, 0, 0, 1], mtu: 65_520 });
    let disks = vec![disk("layer", Access::ReadOnly), disk("scratch", Access::Scratch)];
    let (mut machine, directory) = boot(SLEEP, |spec| MachineSpec { nic, disks, ..spec }).await;
    assert!(matches!(machine.take_link(), Some(Link::Packets(_))));
    assert!(!machine.disks_have_serials());
    for layer in machine.layers() {
        let expected = layer.wall == Wall::Files || layer.standing == Standing::Holds;
        assert!(expected, "{layer:?}");
        assert!(!matches!(layer.standing, Standing::Missing(_)), "{layer:?}");
    }
    let process = PathBuf::from(format!("/proc/{}", machine.pid()));
    let status = fs::read_to_string(process.join("status")).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("1", "2"));
    assert_eq!(field("CapEff:"), "0000000000000000");
    let filters: u32 = field("Seccomp_filters:").parse().unwrap();
    assert!(filters >= 2, "ours and Firecracker's own");
    for namespace in ["net", "pid", "ipc", "uts", "user"] {
        let of = |process: &Path| fs::read_link(process.join("ns").join(namespace)).unwrap();
        assert_ne!(of(&process), of(Path::new("/proc/self")), "{namespace}");
    }
    // The folder is there until the guest is spoken to, which this one never is.
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    drop(machine);
    let left = std::time::Instant::now();
    while fs::read_dir(directory.path()).unwrap().count() > 0 {
        assert!(left.elapsed() < PATIENCE, "the sockets stay");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Then KVM maps it by huge pages, if the host's are: otherwise a boot takes ten times as many faults. Addresses
/// are random, and one in twenty is another one.
#[tokio::test]
#[ignore = "needs KVM"]
async fn the_guests_memory_begins_where_huge_pages_do() {
    const HUGE_PAGE: u64 = 2 << 20;
    let mut seen = String::new();
    for _ in 0..5 {
        let (machine, _directory) = boot(SLEEP, |spec| spec).await;
        let maps = fs::read_to_string(format!("/proc/{}/maps", machine.pid())).unwrap();
        let mut mappings = maps.lines().map(|line| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            [start, end].map(|address| u64::from_str_radix(address, 16).unwrap())
        });
        let size = u64::from(spec(SLEEP).memory_mb) << 20;
        let [start, _] = mappings.find(|[start, end]| end - start == size).expect(&maps);
        if start % HUGE_PAGE == 0 {
            return;
        }
        seen += &maps;
    }
    panic!("never in five machines:\n{seen}");
}

/// A hostile guest calls whatever port it likes: nobody on the host is reached, not even a socket that is there
/// under the right name.
#[tokio::test]
#[ignore = "needs KVM"]
async fn a_guest_reaches_nobody_over_vsock() {
    let directory = tempfile::tempdir().unwrap();
    let spec = MachineSpec { directory: directory.path().to_owned(), ..spec(CALL) };
    let machine = firecracker().boot(spec).await.unwrap();
    let socket = directory.path().join("firecracker/vsock_5000");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let exit = ended(&machine).await;
    assert_eq!(exit.cause, Cause::Shutdown, "the call was refused: {exit}");
    assert!(listener.accept().is_err(), "nobody has called");
}

#[tokio::test]
#[ignore = "needs KVM"]
async fn what_cannot_be_started_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let spec = |disks: usize| {
        let file = || File::open("/dev/null").unwrap();
        let disk = |n: usize| Disk { serial: n.to_string(), file: file(), access: Access::ReadOnly };
        MachineSpec {
            directory: directory.path().to_owned(),
            disks: (0..disks).map(disk).collect(),
            ..spec(SLEEP)
        }
    };
    let error = firecracker().boot(spec(17)).await.unwrap_err();
    assert!(matches!(error, VmmError::TooManyDisks { asked: 17, most: 16, .. }));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    let error = Firecracker::find(OsStr::new("/nowhere")).unwrap_err();
    assert!(error.hint().unwrap().contains("1.7"), "{error}");
}
