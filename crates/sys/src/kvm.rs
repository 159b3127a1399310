//! Whether this host's KVM is usable: that `/dev/kvm` opens says little. There are hosts where
//! it opens and interprets guest code at a thousandth of the speed, so a tiny guest is run and
//! timed.
//!
//! ABI: `linux/kvm.h` and `asm/kvm.h` of x86-64.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use thiserror::Error;

/// Why KVM is not used.
#[derive(Debug, Error)]
pub enum KvmUnusable {
    /// The host's CPU shows neither VMX nor SVM: whatever answers at `/dev/kvm` is not using it.
    #[error("the CPU has no virtualization extension (vmx or svm)")]
    NoCpuFlag,
    /// No `/dev/kvm`.
    #[error("there is no /dev/kvm")]
    NoDevice,
    /// We may not open it.
    #[error("no permission to open /dev/kvm")]
    NoPermission,
    /// It opens, but does not work.
    #[error("/dev/kvm does not work: {step} failed")]
    Broken {
        /// What failed.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Guest code does not run at the CPU's speed.
    #[error("KVM runs guest code at {0} million loops a second, at least {LEAST_MLOOPS} are expected")]
    TooSlow(u64),
}

/// Least speed, million loops of two instructions a second. Metal does about 1000 or more, a guest
/// in a guest some hundred, an interpreter less than one.
pub const LEAST_MLOOPS: u64 = 20;

/// How many rounds the probe takes if KVM is fast: the first also pays for page faults, and one may be
/// interrupted. That is a fraction of a millisecond; where it is slow, one round takes 0.1 s or more.
const ROUNDS: u32 = 3;

/// How long a KVM that seems slow has to show that it was only interrupted.
const DOUBT: Duration = Duration::from_millis(30);

/// Loops of the guest in each round.
const LOOPS: u32 = 65_535;

/// `mov ecx, LOOPS; 1: dec ecx; jnz 1b; out 0x80, al; jmp start`, 32-bit: every round ends with
/// an exit, so the host can stop after any round and never waits for a guest.
const CODE: [u8; 12] = [0xB9, 0xFF, 0xFF, 0, 0, 0x49, 0x75, 0xFD, 0xE6, 0x80, 0xEB, 0xF4];

const CREATION: &str = "creating a VM";

const PAGE: usize = 4096;
const KVM_GET_API_VERSION: libc::c_ulong = 0xAE00;
const KVM_CREATE_VM: libc::c_ulong = 0xAE01;
const KVM_GET_VCPU_MMAP_SIZE: libc::c_ulong = 0xAE04;
const KVM_CREATE_VCPU: libc::c_ulong = 0xAE41;
const KVM_SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_AE46;
const KVM_RUN: libc::c_ulong = 0xAE80;
const KVM_SET_REGS: libc::c_ulong = 0x4090_AE82;
const KVM_GET_SREGS: libc::c_ulong = 0x8138_AE83;
const KVM_SET_SREGS: libc::c_ulong = 0x4138_AE84;
const API_VERSION: libc::c_int = 12;
const EXIT_IO: u32 = 2;

/// `struct kvm_regs`: 16 general registers, then rip and rflags.
type Regs = [u64; 18];
const RIP: usize = 16;
const RFLAGS: usize = 17;

/// `struct kvm_segment`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    kind: u8,
    present: u8,
    dpl: u8,
    db: u8,
    s: u8,
    l: u8,
    g: u8,
    avl: u8,
    unusable: u8,
    padding: u8,
}

/// `struct kvm_sregs`; only the segments and CR0 matter here.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sregs {
    /// cs, ds, es, fs, gs, ss, tr, ldt.
    segments: [Segment; 8],
    /// gdt and idt.
    tables: [[u64; 2]; 2],
    cr0: u64,
    /// cr2, cr3, cr4, cr8, efer, apic_base, and the interrupt bitmap.
    rest: [u64; 10],
}

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_address: u64,
    size: u64,
    host_address: u64,
}

/// Whether KVM can be used, and how fast it is in million loops a second. Takes a few
/// milliseconds for the first time; what was found then holds for this process.
///
/// # Errors
/// The first thing that is missing.
pub fn probe() -> Result<u64, &'static KvmUnusable> {
    static FOUND: OnceLock<Result<u64, KvmUnusable>> = OnceLock::new();
    FOUND.get_or_init(measure).as_ref().copied()
}

/// How long the kernel takes to make a VM, the median of three: below a millisecond where nothing is wrong.
/// Takes so long, and 0.3 s more.
///
/// # Errors
/// What fails.
pub fn creation_time() -> Result<Duration, KvmUnusable> {
    let device = open()?;
    let mut times = [Duration::ZERO; 3];
    for time in &mut times {
        // Of several VMs at once, the kernel makes the second faster.
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        let machine = descriptor(command(device.as_raw_fd(), KVM_CREATE_VM, 0, CREATION)?);
        *time = start.elapsed();
        drop(machine);
    }
    times.sort_unstable();
    Ok(times[1])
}

fn open() -> Result<File, KvmUnusable> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    device.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => KvmUnusable::NoPermission,
        io::ErrorKind::NotFound => KvmUnusable::NoDevice,
        _ => KvmUnusable::Broken { step: "opening it", source: error },
    })
}

fn measure() -> Result<u64, KvmUnusable> {
    let device = open()?;
    if module().is_none() {
        return Err(KvmUnusable::NoCpuFlag);
    }
    let guest = Guest::new(&device)?;
    let speed = guest.speed()?;
    guest.end();
    if speed < LEAST_MLOOPS { Err(KvmUnusable::TooSlow(speed)) } else { Ok(speed) }
}

/// The kernel's module for the virtualization extension that the CPU shows; `None` if it shows none.
///
/// CPUID's own words, not `/proc/cpuinfo`: leaf 1 ECX bit 5 is VMX, leaf 8000_0001h ECX bit 2 SVM.
#[must_use]
pub fn module() -> Option<&'static str> {
    use std::arch::x86_64::__cpuid;
    let vmx = __cpuid(1).ecx & (1 << 5) != 0;
    let svm = __cpuid(0x8000_0000).eax > 0x8000_0000 && __cpuid(0x8000_0001).ecx & (1 << 2) != 0;
    if vmx { Some("kvm_intel") } else { svm.then_some("kvm_amd") }
}

/// The guest: one page of code, one vCPU in flat 32-bit protected mode.
struct Guest {
    vcpu: OwnedFd,
    run: Mapping,
    /// Both must outlive what the vCPU runs.
    _memory: Mapping,
    machine: OwnedFd,
}

impl Guest {
    fn new(device: &File) -> Result<Self, KvmUnusable> {
        let kvm = device.as_raw_fd();
        let version = command(kvm, KVM_GET_API_VERSION, 0, "asking for its version")?;
        if version != API_VERSION {
            let source = io::Error::other(format!("version {version}, expected {API_VERSION}"));
            return Err(KvmUnusable::Broken { step: "asking for its version", source });
        }
        let machine = descriptor(command(kvm, KVM_CREATE_VM, 0, CREATION)?);
        let memory = Mapping::new(PAGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
        memory.write(&CODE);
        let region = MemoryRegion {
            slot: 0,
            flags: 0,
            guest_address: 0,
            size: PAGE as u64,
            host_address: memory.start as u64,
        };
        pass(machine.as_raw_fd(), KVM_SET_USER_MEMORY_REGION, &mut { region }, "giving it memory")?;
        let vcpu = descriptor(command(machine.as_raw_fd(), KVM_CREATE_VCPU, 0, "creating a vCPU")?);
        let size = command(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "sizing a vCPU")?;
        let size = usize::try_from(size).unwrap_or_default().max(PAGE);
        let run = Mapping::new(size, libc::MAP_SHARED, vcpu.as_raw_fd())?;
        let guest = Self { vcpu, run, _memory: memory, machine };
        guest.set_up()?;
        Ok(guest)
    }

    fn set_up(&self) -> Result<(), KvmUnusable> {
        let vcpu = self.vcpu.as_raw_fd();
        let mut sregs = Sregs::default();
        pass(vcpu, KVM_GET_SREGS, &mut sregs, "reading the vCPU")?;
        let flat = |kind| Segment {
            limit: u32::MAX,
            selector: 8,
            kind,
            present: 1,
            db: 1,
            s: 1,
            g: 1,
            ..Segment::default()
        };
        let (code, data) = (11, 3);
        sregs.segments[0] = flat(code);
        sregs.segments[1..6].fill(flat(data));
        sregs.cr0 |= 1;
        pass(vcpu, KVM_SET_SREGS, &mut sregs, "setting the vCPU up")?;
        let mut regs: Regs = [0; 18];
        regs[RIP] = 0;
        regs[RFLAGS] = 2;
        pass(vcpu, KVM_SET_REGS, &mut regs, "setting the vCPU up")
    }

    /// The fastest round counts: in any other, the host may have done something else.
    fn speed(&self) -> Result<u64, KvmUnusable> {
        let start = Instant::now();
        let mut best = 0;
        for round in 0.. {
            let enough = best >= LEAST_MLOOPS || start.elapsed() > DOUBT;
            if round >= ROUNDS && enough {
                break;
            }
            let start = Instant::now();
            self.round()?;
            let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            best = best.max(u64::from(LOOPS) / micros.max(1));
        }
        Ok(best)
    }

    /// The kernel takes its time for the end of a VM, ten milliseconds and more in whoever closes it last, and
    /// nobody has to wait for that: a thread closes it.
    fn end(self) {
        let Self { vcpu, run, machine, .. } = self;
        // The mapping holds the vCPU too, and each child that is forked from here on would have it.
        drop(run);
        // Without a thread we do wait.
        let _ = std::thread::Builder::new().name("kvm probe".to_owned()).spawn(|| drop((vcpu, machine)));
    }

    fn round(&self) -> Result<(), KvmUnusable> {
        command(self.vcpu.as_raw_fd(), KVM_RUN, 0, "running guest code")?;
        match self.run.exit_reason() {
            EXIT_IO => Ok(()),
            other => {
                let source = io::Error::other(format!("unexpected exit {other}"));
                Err(KvmUnusable::Broken { step: "running guest code", source })
            }
        }
    }
}

/// Memory from `mmap`.
struct Mapping {
    start: *mut u8,
    size: usize,
}

impl Mapping {
    fn new(size: usize, flags: libc::c_int, fd: RawFd) -> Result<Self, KvmUnusable> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at a place of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(KvmUnusable::Broken { step: "mapping memory", source: io::Error::last_os_error() });
        }
        Ok(Self { start: start.cast(), size })
    }

    fn write(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.size, "the code fits into a page");
        // SAFETY: within the mapping by the check above, and nobody else uses it yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, bytes.len()) }
    }

    /// `exit_reason` of `struct kvm_run`.
    fn exit_reason(&self) -> u32 {
        const AT: usize = 8;
        // SAFETY: the mapping is at least a page.
        let field = unsafe { self.start.add(AT) };
        // SAFETY: aligned, as the mapping is; written by the kernel during KVM_RUN, not now.
        unsafe { field.cast::<u32>().read_volatile() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, not used after this.
        unsafe { libc::munmap(self.start.cast(), self.size) };
    }
}

/// An ioctl that takes a number.
fn command(
    fd: RawFd,
    request: libc::c_ulong,
    argument: libc::c_ulong,
    step: &'static str,
) -> Result<libc::c_int, KvmUnusable> {
    loop {
        // SAFETY: these requests take a number and touch no memory of ours.
        let result = unsafe { libc::ioctl(fd, request, argument) };
        let error = io::Error::last_os_error();
        match result {
            0.. => return Ok(result),
            _ if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(KvmUnusable::Broken { step, source: error }),
        }
    }
}

/// An ioctl that takes a structure.
fn pass<T>(
    fd: RawFd,
    request: libc::c_ulong,
    argument: &mut T,
    step: &'static str,
) -> Result<(), KvmUnusable> {
    // The size is part of the request's number: a structure of the wrong size is a mistake here.
    assert_eq!(usize::try_from((request >> 16) & 0x3FFF), Ok(size_of::<T>()));
    // SAFETY: the structure has the size that the request says, and is valid for the call.
    match unsafe { libc::ioctl(fd, request, &raw mut *argument) } {
        0.. => Ok(()),
        _ => Err(KvmUnusable::Broken { step, source: io::Error::last_os_error() }),
    }
}

fn descriptor(fd: libc::c_int) -> OwnedFd {
    // SAFETY: a new descriptor from an ioctl that creates one.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever this host is: an answer, soon, with a reason if it is no.
    #[test]
    fn the_probe_answers_soon_and_judges_by_speed() {
        let start = Instant::now();
        match probe() {
            Ok(mloops) => assert!(mloops >= LEAST_MLOOPS),
            Err(why) => assert!(!why.to_string().is_empty()),
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }

    /// A `/dev/kvm` that opens is measured, not trusted: CPUs without the flag have some, too.
    #[test]
    fn a_device_without_the_cpu_flag_is_still_measured_in_bounded_time() {
        let device = match open() {
            Ok(device) => device,
            Err(why) => return assert!(matches!(why, KvmUnusable::NoDevice | KvmUnusable::NoPermission)),
        };
        let start = Instant::now();
        match Guest::new(&device).and_then(|guest| guest.speed()) {
            Ok(mloops) => assert!(module().is_some() || mloops < LEAST_MLOOPS, "{mloops}"),
            Err(why) => assert!(matches!(why, KvmUnusable::Broken { .. })),
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
