//! What the filters decide, by interpreting them as the kernel does.

use super::*;

/// Runs a filter on one system call: the part of classic BPF that seccompiler makes.
fn decide(filter: &BpfProgram, call: c_long, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(u32::try_from(call).unwrap().to_le_bytes());
    let arch: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
    let load = |at: u32| u32::from_le_bytes(data[at as usize..at as usize + 4].try_into().unwrap());

    let (mut accumulator, mut at) = (0, 0);
    loop {
        let step = &filter[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { step.jt } else { step.jf });
        match step.code {
            0x20 => accumulator = load(step.k),
            0x54 => accumulator &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x06 => return step.k,
            code => panic!("instruction {code:#x}"),
        }
    }
}

const ALLOW: u32 = 0x7fff_0000;

fn errno(call: c_long, arguments: [u64; 6]) -> Option<i32> {
    let filters = filters().unwrap();
    let refused =
        filters.iter().map(|filter| decide(filter, call, arguments)).find(|answer| *answer != ALLOW)?;
    assert_eq!(refused & 0xffff_0000, 0x0005_0000, "refused with an error, not by killing");
    Some(i32::try_from(refused & 0xffff).unwrap())
}

#[test]
fn what_programs_need_is_allowed() {
    for call in [libc::SYS_read, libc::SYS_execve, libc::SYS_ptrace, libc::SYS_chroot, libc::SYS_memfd_create]
    {
        assert_eq!(errno(call, [0; 6]), None);
    }
    let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
    assert_eq!(errno(libc::SYS_clone, [u64::from(thread.cast_unsigned()), 0, 0, 0, 0, 0]), None);
    assert_eq!(errno(libc::SYS_socket, [2, 1, 0, 0, 0, 0]), None);
    assert_eq!(errno(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]), None);
}

#[test]
fn what_changes_the_whole_system_is_refused() {
    for call in [
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_reboot,
        libc::SYS_keyctl,
    ] {
        assert_eq!(errno(call, [0; 6]), Some(libc::EPERM));
    }
    assert_eq!(errno(libc::SYS_personality, [0x004_0000, 0, 0, 0, 0, 0]), Some(libc::EPERM));
    assert_eq!(errno(libc::SYS_socket, [40, 1, 0, 0, 0, 0]), Some(libc::EPERM));
}

#[test]
fn no_way_of_cloning_gives_a_new_namespace() {
    for flag in [0x0002_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000] {
        assert_eq!(errno(libc::SYS_clone, [flag | 17, 0, 0, 0, 0, 0]), Some(libc::EPERM), "{flag:#x}");
    }
    assert_eq!(errno(libc::SYS_clone3, [0; 6]), Some(libc::ENOSYS));
}
