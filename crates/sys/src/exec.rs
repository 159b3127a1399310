//! `execve(2)` with an argument list and an environment of the caller's own.

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::ptr;

/// Becomes `program`. Returns only if that failed, and then says why.
#[must_use]
pub fn execve(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: both lists end with a null pointer, and the strings behind the others outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Marks every descriptor but the three standard ones to be closed by the next successful `execve`.
///
/// # Errors
/// As in `close_range(2)`.
pub fn close_others_on_exec() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: nothing is closed now, so no descriptor in use disappears.
    if unsafe { libc::close_range(3, u32::MAX, flags) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_said_to_be_missing() {
        let error = execve(c"/no/such/program", &[c"x".to_owned()], &[]);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
