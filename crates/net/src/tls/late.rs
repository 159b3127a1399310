//! The authority of a sandbox, made while its VM starts: a process's first keys take tens of milliseconds.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Authority, AuthorityError};

/// An [`Authority`] that is made when it is first needed, once.
#[derive(Default)]
pub struct LateAuthority {
    made: OnceLock<Authority>,
    making: Mutex<()>,
}

impl LateAuthority {
    /// The authority. Whoever comes while it is being made waits for it.
    ///
    /// # Errors
    ///
    /// See [`AuthorityError`]; the next one tries again.
    pub fn get(&self) -> Result<&Authority, AuthorityError> {
        if let Some(authority) = self.made.get() {
            return Ok(authority);
        }
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match self.made.get() {
            Some(authority) => Ok(authority),
            None => {
                let authority = Authority::new()?;
                Ok(self.made.get_or_init(|| authority))
            }
        }
    }
}
