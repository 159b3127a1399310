//! Namespaces that a process enters without forking: `unshare(2)`.

use std::io;

/// Makes the control group that this process is in the root of what it and its children see of the
/// hierarchy, also after they have moved elsewhere.
///
/// # Errors
/// As in `unshare(2)`; needs `CAP_SYS_ADMIN`.
pub fn root_cgroups_here() -> io::Result<()> {
    // SAFETY: a control group namespace changes names only, no memory and no descriptors.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
