//! The platform an image is for, `os/architecture[/variant]`, in the OCI image specification's
//! words (which are Go's), and which images run on which host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What an image is built for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Always `linux` for an image that can run here.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// Of the architecture: `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Not a platform.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a platform: os/architecture, with an optional /variant")]
pub struct InvalidPlatform(String);

impl Platform {
    /// This machine's: Linux on its own architecture.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// Whether an image for `self` runs where `wanted` is asked for. Without a variant asked for,
    /// only the baseline counts: an `amd64/v3` image may need more than the vCPU has.
    #[must_use]
    pub fn runs_on(&self, wanted: &Self) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && self.effective_variant() == wanted.effective_variant()
    }

    /// The variant, or the one that goes without saying.
    fn effective_variant(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref().filter(|variant| !variant.is_empty())) {
            ("arm64", None) => Some("v8"),
            ("amd64", None) => Some("v1"),
            ("arm", None) => Some("v7"),
            (_, variant) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        Ok(Self {
            os: parts[0].into(),
            architecture: parts[1].into(),
            variant: parts.get(2).map(|variant| (*variant).into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(image: &str, wanted: &str) -> bool {
        image.parse::<Platform>().unwrap().runs_on(&wanted.parse().unwrap())
    }

    #[test]
    fn an_image_runs_on_its_own_platform_only() {
        assert!(runs("linux/amd64", "linux/amd64"));
        assert!(runs("linux/arm64/v8", "linux/arm64"));
        assert!(runs("linux/arm64", "linux/arm64/v8"));
        assert!(runs("linux/amd64/v3", "linux/amd64/v3"));
        assert!(!runs("linux/amd64/v3", "linux/amd64"));
        assert!(!runs("linux/arm64", "linux/amd64"));
        assert!(!runs("windows/amd64", "linux/amd64"));
        assert!(!runs("unknown/unknown", "linux/amd64"));
    }

    #[test]
    fn text_is_parsed_strictly() {
        assert_eq!("linux/arm64/v8".parse::<Platform>().unwrap().to_string(), "linux/arm64/v8");
        for wrong in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64"] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
    }
}
