//! How the VM ends: always, and by a reset.
//!
//! The VMM is started so that a reset ends it, and the kernel with `reboot=t` (a triple fault). A
//! power-off would need ACPI, which a microvm does not have: the kernel would only halt, and the VM
//! hang. A defect of ours must end the VM too, so panics come here.

use std::error::Error;
use std::panic;

use rustix::system::{RebootCommand, reboot};

/// Ends the VM now. What is not on disk yet is lost.
pub(crate) fn power_off() -> ! {
    let error = reboot(RebootCommand::Restart);
    eprintln!("matchlock: cannot power off: {error:?}");
    // When process 1 ends, the kernel panics and, told so by its configuration, resets.
    std::process::exit(1)
}

/// Says on the console why, and ends the VM.
pub(crate) fn fail(error: &dyn Error) -> ! {
    eprintln!("matchlock: {}", with_causes(error));
    power_off()
}

/// Makes a panic of any thread the end of the VM.
pub(crate) fn power_off_on_panic() {
    panic::set_hook(Box::new(|panic| {
        eprintln!("matchlock: {panic}");
        power_off();
    }));
}

/// An error's text with those of its causes.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_in_order() {
        let cause = std::io::Error::from_raw_os_error(5);
        let error = crate::boot::BootError::step("mount the scratch disk", cause);
        assert_eq!(with_causes(&error), "cannot mount the scratch disk: Input/output error (os error 5)");
    }
}
