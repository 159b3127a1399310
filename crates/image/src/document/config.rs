//! The image configuration: how to run the image, and what its layers are.

use std::collections::BTreeMap;

use api::image::ImageConfig;
use serde::Deserialize;

use super::{DocumentError, MAX_LAYERS};
use crate::digest::Digest;
use crate::platform::Platform;

/// What is needed of an image configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    /// `None` if it does not say.
    pub(crate) platform: Option<Platform>,
    /// Of the layers, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) config: ImageConfig,
}

/// The OCI image specification's configuration. Go programs write `null` for whatever is empty.
#[derive(Deserialize)]
struct Raw {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
    config: Option<RawConfig>,
    rootfs: Option<RawRootFs>,
}

#[derive(Deserialize)]
struct RawRootFs {
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct RawConfig {
    env: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    stop_signal: Option<String>,
}

impl Configuration {
    /// Reads a configuration.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, DocumentError> {
        let raw: Raw = serde_json::from_slice(json)
            .map_err(|source| DocumentError::Malformed { what: "configuration", source })?;
        let diff_ids = raw.rootfs.and_then(|it| it.diff_ids).unwrap_or_default();
        if diff_ids.len() > MAX_LAYERS {
            return Err(DocumentError::TooManyLayers(diff_ids.len()));
        }
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let platform = said(raw.os).zip(said(raw.architecture)).map(|(os, architecture)| Platform {
            os,
            architecture,
            variant: said(raw.variant),
        });
        Ok(Self { platform, diff_ids, config: raw.config.unwrap_or_default().into() })
    }

    /// Checks that the image is for a platform and has so many layers; returns its platform.
    pub(crate) fn check(&self, wanted: &Platform, layers: usize) -> Result<Platform, DocumentError> {
        if self.diff_ids.len() != layers {
            return Err(DocumentError::LayerCount { layers, diff_ids: self.diff_ids.len() });
        }
        match &self.platform {
            Some(found) if !found.runs_on(wanted) => {
                Err(DocumentError::WrongPlatform { wanted: wanted.to_string(), found: found.to_string() })
            }
            Some(found) => Ok(found.clone()),
            None => Ok(wanted.clone()),
        }
    }
}

impl From<RawConfig> for ImageConfig {
    fn from(raw: RawConfig) -> Self {
        Self {
            env: raw.env.unwrap_or_default(),
            user: raw.user.unwrap_or_default(),
            working_dir: raw.working_dir.unwrap_or_default(),
            entrypoint: raw.entrypoint.unwrap_or_default(),
            cmd: raw.cmd.unwrap_or_default(),
            labels: raw.labels.unwrap_or_default(),
            exposed_ports: raw.exposed_ports.unwrap_or_default().into_keys().collect(),
            stop_signal: raw.stop_signal.unwrap_or_default(),
        }
    }
}
