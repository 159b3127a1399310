//! Kept scratch disks under real VMs, one after the other: what the next one finds after a power-off,
//! and after the VMM was killed.

use std::process::Command;
use std::time::Duration;

use api::image::ImageConfig;
use api::spec::CommandSpec;
use image::import::{ImportOptions, Input};
use image::progress::Silent;
use image::store::{Cancel, LayerSet, Store};
use proto::boot::{BootConfig, Root};
use vmm::kernel::Kernels;
use vmm::qemu::Qemu;
use vmm::{Access, Cause, Disk, Machine, MachineSpec, Pace};

use super::*;
use crate::agent::{Agent, Ended, Event, Running, Stdio};
use crate::boot::{self, Booted};
use crate::launch::GUEST;
use crate::timings::Timings;

struct Kept {
    directory: tempfile::TempDir,
    layers: LayerSet,
}

struct Vm {
    machine: Machine,
    booted: Booted,
    agent: Agent,
}

impl Kept {
    /// A new disk over the layers of a busybox image.
    fn new() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/make-image");
        let made = Command::new(script).arg("busybox").output().expect("scripts/make-image runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let tar = String::from_utf8(made.stdout).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("images")).unwrap();
        let options = ImportOptions::new("busybox".parse().unwrap());
        let (input, cancel) = (Input::Path(tar.trim_end().into()), Cancel::default());
        let image = image::import::import(&store, input, &options, &Silent, &cancel).unwrap();
        let layers = store.open_layers(&image, &cancel).unwrap();
        let kept = Self { directory, layers };
        drop(create_named(&kept.path(), Blank::begin(64).unwrap()).unwrap());
        kept
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("scratch.ext4")
    }

    async fn boot(&self) -> Vm {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let qemu = Qemu::find(&path).expect("QEMU is needed: apt install qemu-system-x86");
        let layer = self.layers.disks()[0].file().try_clone().unwrap();
        let scratch = open_named(&self.path()).unwrap();
        let spec = MachineSpec {
            vcpus: 1,
            memory_mb: 128,
            pace: Pace::Sprint,
            kernel: kernel(),
            initramfs: vmm::initramfs::with_init(GUEST),
            disks: vec![
                Disk { serial: "layer".to_owned(), file: layer, access: Access::ReadOnly },
                Disk { serial: "scratch".to_owned(), file: scratch, access: Access::Durable },
            ],
            nic: None,
            directory: self.directory.path().to_owned(),
            console: None,
        };
        let machine = qemu.boot(spec).await.unwrap();
        let config = || BootConfig {
            hostname: "kept".to_owned(),
            hosts: Vec::new(),
            dns_servers: Vec::new(),
            clock_unix_ns: 1_700_000_000_000_000_000,
            entropy: vec![1; 64],
            disks: Vec::new(),
            root: Root { layers: vec!["layer".to_owned()], scratch: "scratch".to_owned(), durable: true },
            mounts: Vec::new(),
            cpu_quota_millis: None,
            network: None,
            certificate: None,
        };
        let booted = boot::converse(machine.channel(), config, &mut Timings::start()).await;
        let booted = booted.unwrap_or_else(|error| panic!("{error}\n{}", machine.console_tail()));
        let agent = Agent::new(machine.channel().clone());
        Vm { machine, booted, agent }
    }

    /// What `debugfs` says of the disk as it is.
    fn debugfs(&self, request: &str) -> String {
        let output = Command::new("debugfs").args(["-R", request]).arg(self.path()).output();
        let output = output.expect("debugfs is needed: apt install e2fsprogs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    fn assert_clean(&self, path: &Path) {
        let disk = File::open(path).unwrap();
        assert_eq!(ext4::content(&disk).unwrap(), ext4::Content::Clean);
        let check = Command::new("e2fsck").args(["-f", "-n"]).arg(path).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
        assert!(self.debugfs("stat /work/work/incompat").contains("File not found"), "never volatile");
    }
}

impl Vm {
    async fn start(&self, line: &str) -> Running {
        let args = ["sh", "-c", line].map(str::to_owned).to_vec();
        let spec = CommandSpec { args, ..CommandSpec::default() };
        let exec = crate::command::resolve(&ImageConfig::default(), &spec, Stdio::Pipes { stdin: false });
        self.agent.exec(exec.unwrap()).await.unwrap()
    }

    async fn sh(&self, line: &str) -> String {
        let mut running = self.start(line).await;
        let (mut text, mut buffer) = (Vec::new(), Vec::new());
        loop {
            match running.output.next(&mut buffer).await.unwrap() {
                Event::Wrote(_) => text.extend_from_slice(&buffer),
                Event::Ended(ended) => {
                    let text = String::from_utf8(text).unwrap();
                    assert_eq!(ended, Ended::Exited(0), "{text}");
                    return text;
                }
            }
        }
    }

    async fn power_off(mut self) {
        self.booted.power_off(Duration::ZERO).await.unwrap();
        let exit = tokio::time::timeout(Duration::from_secs(30), self.machine.exited()).await.unwrap();
        assert!(exit.cause == Cause::Shutdown && !exit.console_tail.contains("matchlock: "), "{exit:?}");
    }
}

fn kernel() -> PathBuf {
    if let Some(path) = std::env::var_os("MATCHLOCK_KERNEL") {
        return path.into();
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("MATCHLOCK_CACHE").map_or(home.join(".cache/matchlock"), PathBuf::from);
    let kernel = Kernels::new(cache).default_kernel();
    kernel.expect("a kernel is needed: `matchlock kernel build`, or name one in MATCHLOCK_KERNEL").path
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_vm_finds_what_the_last_one_left() {
    let kept = Kept::new();
    let vm = kept.boot().await;
    vm.sh("echo mine > /etc/mark && rm /etc/group && mv /home /house && chmod 700 /bin/busybox").await;
    assert_eq!(open_named(&kept.path()).unwrap_err().kind(), Kind::Conflict, "it is this VM's");
    vm.power_off().await;
    kept.assert_clean(&kept.path());
    let vm = kept.boot().await;
    let found = vm
        .sh("cat /etc/mark; ls -d /etc/group /home 2>&1 | wc -l; ls /house; ls -l /bin/busybox | cut -c 1-10")
        .await;
    assert_eq!(found, "mine\n2\nuser\n-rwx------\n");
    vm.sh("echo again >> /etc/mark").await;
    vm.power_off().await;
    kept.assert_clean(&kept.path());
}

/// As when the host's kernel kills the VMM for lack of memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_killed_while_it_writes_leaves_a_disk_that_mounts_with_all_that_was_synced() {
    let kept = Kept::new();
    let mut synced = 0;
    for round in 0..3 {
        let vm = kept.boot().await;
        if round > 0 {
            let count: u64 = vm.sh("cat /count").await.trim().parse().unwrap();
            assert!(count >= synced, "{synced} was synced, {count} is there");
            // A file that was renamed after it was synced is whole, whatever came next.
            let wrong = "for file in /etc/file-*; do test $(wc -c < $file) = 50000 || echo $file; done";
            assert_eq!(vm.sh(wrong).await, "");
        }
        let line = format!(
            "n={synced}; while :; do n=$((n+1)); head -c 50000 /dev/urandom > /part; sync; \
             mv /part /etc/file-$((n % 9)); echo $n > /count.new; sync; mv /count.new /count; sync; echo $n; done"
        );
        let mut running = vm.start(&line).await;
        let (mut buffer, stop) = (Vec::new(), synced + 4 + round);
        while synced < stop {
            assert!(matches!(running.output.next(&mut buffer).await.unwrap(), Event::Wrote(_)));
            let text = String::from_utf8_lossy(&buffer).into_owned();
            synced = text.lines().last().unwrap().parse().unwrap();
        }
        vm.machine.kill().await;

        let disk = File::open(kept.path()).unwrap();
        assert_eq!(ext4::content(&disk).unwrap(), ext4::Content::Unrecovered, "killed in the middle");
        // On a copy, since it is the next VM that must recover the disk itself.
        let copy = kept.directory.path().join("copy.ext4");
        std::fs::copy(kept.path(), &copy).unwrap();
        let recovered = Command::new("e2fsck").args(["-p"]).arg(&copy).output().unwrap();
        let said = String::from_utf8_lossy(&recovered.stdout);
        assert!(said.contains("recovering journal") && recovered.status.code() == Some(0), "{said}");
        kept.assert_clean(&copy);
    }
    let vm = kept.boot().await;
    vm.power_off().await;
    kept.assert_clean(&kept.path());
}
