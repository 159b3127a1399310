//! What QEMU says when it gives up.

/// How to get it.
pub(super) const INSTALL: &str = "install it with `apt install qemu-system-x86` (Debian, Ubuntu), \
     `dnf install qemu-system-x86-core` (Fedora), `pacman -S qemu-system-x86` (Arch) or \
     `apk add qemu-system-x86_64` (Alpine)";

/// What to do about a QEMU that gave up, judged by what it wrote to its standard error.
pub(crate) fn hint(complaint: &str) -> Option<String> {
    let has = |words: &[&str]| words.iter().any(|word| complaint.contains(word));
    if has(&["unsupported machine type", "sandbox support is not enabled", "Parameter 'sandbox'"]) {
        return Some(format!("this QEMU is too old, or built without microvm or seccomp; {INSTALL}"));
    }
    if has(&["cannot set up guest memory", "Cannot allocate memory", "failed to allocate"]) {
        return Some("the host is short of memory: give the VM less (--memory), or end something".to_owned());
    }
    has(&["error while loading shared libraries"]).then(|| format!("QEMU is not installed well; {INSTALL}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_that_gives_up_is_explained() {
        let old =
            "qemu-system-x86_64: unsupported machine type\nUse -machine help to list supported machines";
        assert!(hint(old).unwrap().contains("too old"));
        let memory = "qemu-system-x86_64: cannot set up guest memory 'microvm.ram': Cannot allocate memory";
        assert!(hint(memory).unwrap().contains("--memory"));
        assert_eq!(hint("qemu-system-x86_64: terminating on signal 15"), None);
    }
}
