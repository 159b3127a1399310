//! The unsafe fence: system calls that no well-kept crate wraps, each in a safe function that says what
//! it needs. Policy of any kind lives elsewhere.

pub mod draft;
pub mod exec;
pub mod fork;
pub mod loopback;
pub mod mount;
pub mod namespace;
pub mod packet;
pub mod random;
pub mod rtnetlink;
pub mod seccomp;
pub mod signal;
pub mod tap;

pub mod jail;
#[cfg(target_arch = "x86_64")]
pub mod kvm;
pub mod process;
#[cfg(target_arch = "x86_64")]
pub mod tsc;
