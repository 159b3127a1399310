//! Images in the form of the OCI image layout, made of tars that a test has at hand.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::tool;

/// The name of the one image in a layout.
pub const TAG: &str = "latest";

/// An image in a directory of its own, removed when dropped.
#[derive(Debug)]
pub struct Layout {
    directory: TempDir,
}

impl Layout {
    /// An image of `layers` (tars, lowest first) for this platform. `config` is the object of that
    /// name in the image configuration: `{"Cmd": ["/bin/sh"], "Env": ["A=1"]}`.
    ///
    /// # Panics
    /// When the disk is full.
    #[must_use]
    pub fn build(layers: &[&[u8]], config: &Value) -> Self {
        let layout = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
        let config = layout.blob(
            "application/vnd.oci.image.config.v1+json",
            json!({
                "architecture": architecture(), "os": "linux", "config": config,
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            })
            .to_string()
            .as_bytes(),
        );
        let layers: Vec<_> =
            layers.iter().map(|layer| layout.blob("application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
        let mut manifest = layout.blob(media_type, manifest.to_string().as_bytes());
        manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": TAG });
        layout.write(
            "index.json",
            json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string().as_bytes(),
        );
        layout.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        layout
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where skopeo finds it.
    #[must_use]
    pub fn transport(&self) -> String {
        format!("oci:{}:{TAG}", self.path().display())
    }

    /// Writes the image in another form, by skopeo's name for it: `oci-archive`, `docker-archive`.
    ///
    /// # Panics
    /// When skopeo cannot write it.
    pub fn export(&self, transport: &str, to: &Path) {
        let mut skopeo = Command::new(tool::find("skopeo"));
        skopeo.args(["--insecure-policy", "copy", "--quiet"]).arg(self.transport());
        skopeo.arg(format!("{transport}:{}:test:{TAG}", to.display()));
        let output = skopeo.stdin(Stdio::null()).output().expect("skopeo runs");
        assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Stores a blob and returns its descriptor.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        self.write(&format!("blobs/{}", digest.replace(':', "/")), bytes);
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("it lies in the layout")).expect("the directory is ours");
        fs::write(&path, bytes).expect("the directory is ours");
    }
}

/// The digest of `bytes` as the OCI specification writes it.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// This machine's architecture by its OCI name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skopeo_reads_a_layout_and_writes_archives_of_it() {
        let layout = Layout::build(&[&[0; 1024]], &json!({ "Env": ["A=1"] }));
        for transport in ["oci-archive", "docker-archive"] {
            let archive = layout.path().join(transport);
            layout.export(transport, &archive);
            assert!(fs::metadata(&archive).unwrap().len() > 1024);
        }
    }
}
