//! Sandbox names: what users may call a sandbox instead of its identifier.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::SandboxId;
use crate::error::{Explain, Kind};

/// The longest name, in bytes: it can serve as the guest's host name, one label of DNS.
const MAX_LENGTH: usize = 63;

/// A name for a sandbox: letters, digits, `_`, `.` and `-`, beginning with a letter or digit, and
/// never what could be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SandboxName(String);

/// Not a name a sandbox can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidName {
    /// Its length or one of its characters.
    #[error("{0:?} is not a sandbox name")]
    Form(String),
    /// It would be taken for the identifier of some sandbox.
    #[error("the name {0:?} has the form of a sandbox ID")]
    LooksLikeId(String),
}

impl Explain for InvalidName {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn hint(&self) -> Option<String> {
        Some(format!(
            "use a letter or digit and then up to {} letters, digits, '_', '.' or '-', not vm- and eight \
             hexadecimal digits",
            MAX_LENGTH - 1
        ))
    }
}

impl SandboxName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for SandboxName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let well_formed = text.len() <= MAX_LENGTH
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !well_formed {
            return Err(InvalidName::Form(text.to_owned()));
        }
        // In capitals, too: nobody should have to look twice at what a command was given.
        if text.to_ascii_lowercase().parse::<SandboxId>().is_ok() {
            return Err(InvalidName::LooksLikeId(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl From<SandboxName> for String {
    fn from(name: SandboxName) -> Self {
        name.0
    }
}

impl TryFrom<String> for SandboxName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_words_that_are_no_ids() {
        let longest = "x".repeat(MAX_LENGTH);
        for name in ["a", "7", "web-1", "My_app.v2", "vm-", "vm-123", "deadbeef", "vm-0000001f0", &longest] {
            assert_eq!(name.parse::<SandboxName>().unwrap().as_str(), name);
        }
        let too_long = "x".repeat(MAX_LENGTH + 1);
        for wrong in ["", "-a", ".a", "_a", "a b", "a/b", "ä", "a\n", "a\0", &too_long] {
            assert_eq!(wrong.parse::<SandboxName>(), Err(InvalidName::Form(wrong.to_owned())));
        }
        for id in ["vm-0000001f", "VM-DEADBEEF"] {
            assert_eq!(id.parse::<SandboxName>(), Err(InvalidName::LooksLikeId(id.to_owned())));
        }
    }
}
