//! Documents as registries serve them, and as nobody should.

use serde_json::{Value, json};

use super::*;
use crate::digest::Digest;
use crate::platform::Platform;

fn manifest(value: &Value) -> Result<Manifest, DocumentError> {
    Manifest::parse(value.to_string().as_bytes())
}

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(b"x").to_string(), "size": 1})
}

fn image_of(config: &str, layer: &str) -> Result<Manifest, DocumentError> {
    manifest(&json!({"schemaVersion": 2, "config": descriptor(config), "layers": [descriptor(layer)]}))
}

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[test]
fn oci_and_docker_images_are_read() {
    let docker_config = "application/vnd.docker.container.image.v1+json";
    for layer in [
        OCI_LAYER,
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ] {
        assert!(matches!(image_of(OCI_CONFIG, layer), Ok(Manifest::Image { .. })), "{layer}");
        assert!(matches!(image_of(docker_config, layer), Ok(Manifest::Image { .. })), "{layer}");
    }
}

#[test]
fn what_is_not_an_image_is_named() {
    let refused = image_of("application/vnd.cncf.helm.config.v1+json", OCI_LAYER);
    assert!(matches!(refused, Err(DocumentError::NotAnImage(it)) if it.contains("helm")));
    let refused = image_of(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted");
    assert!(matches!(refused, Err(DocumentError::LayerType(it)) if it.ends_with("encrypted")));
    let schema1 = json!({"schemaVersion": 1, "name": "a", "fsLayers": [], "history": []});
    assert!(matches!(manifest(&schema1), Err(DocumentError::Schema1)));
    let both = json!({"schemaVersion": 2, "manifests": [], "config": descriptor(OCI_CONFIG), "layers": []});
    assert!(matches!(manifest(&both), Err(DocumentError::Ambiguous)));
    for malformed in [json!([]), json!({"manifests": [{"digest": "sha256:../../x", "size": 1}]}), json!(null)]
    {
        assert!(matches!(manifest(&malformed), Err(DocumentError::Malformed { .. })), "{malformed}");
    }
    let layers = vec![descriptor(OCI_LAYER); MAX_LAYERS + 1];
    let many = json!({"schemaVersion": 2, "config": descriptor(OCI_CONFIG), "layers": layers});
    assert!(matches!(manifest(&many), Err(DocumentError::TooManyLayers(_))));
}

#[test]
fn the_entry_for_the_platform_is_selected() {
    let entry = |content: &str, platform: Value| json!({"digest": Digest::of(content.as_bytes()).to_string(), "size": 1, "platform": platform});
    let index = json!({"schemaVersion": 2, "manifests": [
        entry("attestation", json!({"os": "unknown", "architecture": "unknown"})),
        entry("arm", json!({"os": "linux", "architecture": "arm64", "variant": "v8"})),
        entry("v3", json!({"os": "linux", "architecture": "amd64", "variant": "v3"})),
        entry("amd", json!({"os": "linux", "architecture": "amd64"})),
    ]});
    let Ok(Manifest::Index(entries)) = manifest(&index) else { panic!("not an index") };
    let digest =
        |platform: &str| select(entries.iter(), &platform.parse::<Platform>().unwrap()).map(|it| it.digest);
    assert_eq!(digest("linux/amd64").unwrap(), Digest::of(b"amd"));
    assert_eq!(digest("linux/arm64").unwrap(), Digest::of(b"arm"));
    let error = digest("linux/riscv64").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the image does not exist for linux/riscv64, only for linux/arm64/v8, linux/amd64/v3, linux/amd64"
    );
    let silent = json!({"schemaVersion": 2, "manifests": [entry("only", json!(null))]});
    let Ok(Manifest::Index(entries)) = manifest(&silent) else { panic!("not an index") };
    assert_eq!(select(entries.iter(), &Platform::host()).unwrap().digest, Digest::of(b"only"));
}

#[test]
fn a_configuration_may_be_full_of_nulls() {
    let json = json!({
        "os": "linux", "architecture": "arm64", "variant": "",
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"1").to_string()]},
        "config": {
            "Env": ["PATH=/bin"], "User": "", "WorkingDir": "/w", "Entrypoint": null, "Cmd": ["sh", "-c", "a b"],
            "Labels": null, "ExposedPorts": {"80/tcp": {}, "53/udp": null}, "StopSignal": "SIGINT", "Volumes": null
        },
    });
    let parsed = Configuration::parse(json.to_string().as_bytes()).unwrap();
    assert_eq!(parsed.config.cmd, ["sh", "-c", "a b"]);
    assert_eq!(parsed.config.exposed_ports, ["53/udp", "80/tcp"]);
    assert_eq!(parsed.config.stop_signal, "SIGINT");
    let arm = "linux/arm64".parse().unwrap();
    assert_eq!(parsed.check(&arm, 1).unwrap(), arm);
    let wrong = parsed.check(&"linux/amd64".parse().unwrap(), 1).unwrap_err();
    assert_eq!(wrong.to_string(), "the image is for linux/arm64, not for linux/amd64");
    assert!(matches!(parsed.check(&arm, 2), Err(DocumentError::LayerCount { layers: 2, diff_ids: 1 })));

    let empty = Configuration::parse(br#"{"config": null, "rootfs": {"diff_ids": null}}"#).unwrap();
    assert_eq!(empty, Configuration { platform: None, diff_ids: vec![], config: Default::default() });
    assert!(Configuration::parse(b"{\"config\": 1}").is_err());
}
