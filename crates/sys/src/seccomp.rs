//! Filters of system calls that refuse some with an error and let all others pass: `seccomp(2)`.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// System calls, and the arguments with which they are refused: any, if there are no rules.
pub type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// A filter for this architecture, whose answer is `error`.
///
/// # Errors
/// For rules that cannot be compiled.
pub fn refused(rules: Rules, error: i32) -> Result<BpfProgram, BackendError> {
    let answer = SeccompAction::Errno(error.unsigned_abs());
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)?.try_into()
}

/// Calls with whatever arguments.
pub fn always<'a>(calls: impl IntoIterator<Item = &'a i64>) -> Rules {
    calls.into_iter().map(|call| (*call, Vec::new())).collect()
}

/// Matches `clone(2)` with any of the flags for new namespaces.
///
/// # Errors
/// As of [`argument`], of which none can happen here.
pub fn new_namespaces() -> Result<Vec<SeccompRule>, BackendError> {
    let flags = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    flags.into_iter().map(|flag| has_flag(0, flag)).collect()
}

/// Matches if the argument of this index has all bits of `flag`.
///
/// # Errors
/// For an index above 5.
pub fn has_flag(index: u8, flag: i32) -> Result<SeccompRule, BackendError> {
    let flag = u64::from(flag.unsigned_abs());
    argument(index, SeccompCmpOp::MaskedEq(flag), flag)
}

/// Matches by the lower half of an argument, which is all that the kernel takes of an `int` and of flags.
///
/// # Errors
/// For an index above 5.
pub fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?])
}
