//! Sandbox identifiers: `vm-` and eight hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A sandbox's identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SandboxId(u32);

/// Not `vm-` and eight lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a sandbox ID (vm- and eight hexadecimal digits)")]
pub struct InvalidId(String);

impl SandboxId {
    /// The identifier made of these random bits.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vm-{:08x}", self.0)
    }
}

impl FromStr for SandboxId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.strip_prefix("vm-").filter(|digits| {
            digits.len() == 8 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        });
        digits
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .map(Self)
            .ok_or_else(|| InvalidId(text.to_owned()))
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SandboxId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_vm_and_eight_hex_digits() {
        assert_eq!(SandboxId::from_bits(0x1f).to_string(), "vm-0000001f");
        assert_eq!("vm-0000001f".parse(), Ok(SandboxId::from_bits(0x1f)));
        for wrong in ["", "vm-", "vm-1f", "vm-0000001F", "vm-+000001f", "0000001f", "vm-0000001f0"] {
            assert!(wrong.parse::<SandboxId>().is_err(), "{wrong}");
        }
    }
}
