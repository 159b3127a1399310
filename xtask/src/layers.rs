//! Who may use whom. The table is the one of ARCHITECTURE.md; the truth is what Cargo reads.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::step;

/// A crate and the crates of ours that it may depend on, in tests and build scripts too.
/// A new crate is placed here first.
const LAYERS: &[(&str, &[&str])] = &[
    ("matchlock-api", &[]),
    ("matchlock-proto", &[]),
    ("matchlock-sys", &[]),
    ("matchlock-image", &["matchlock-api", "matchlock-sys"]),
    ("matchlock-policy", &["matchlock-api"]),
    ("matchlock-net", &["matchlock-api", "matchlock-policy", "matchlock-sys"]),
    ("matchlock-vmm", &["matchlock-api", "matchlock-proto", "matchlock-sys"]),
    (
        "matchlock-sandbox",
        &[
            "matchlock-api",
            "matchlock-image",
            "matchlock-net",
            "matchlock-policy",
            "matchlock-proto",
            "matchlock-sys",
            "matchlock-vmm",
        ],
    ),
    // The last two for an agent in its tests.
    ("matchlock-rpc", &["matchlock-api", "matchlock-sandbox", "matchlock-proto", "matchlock-vmm"]),
    (
        "matchlock",
        &[
            "matchlock-api",
            "matchlock-image",
            "matchlock-policy",
            "matchlock-rpc",
            "matchlock-sandbox",
            "matchlock-sys",
            "matchlock-vmm",
        ],
    ),
    ("matchlock-guest", &["matchlock-proto", "matchlock-sys"]),
];

/// Crates outside the product, which may use what they like.
const EXEMPT: &[&str] = &["matchlock-tests", "xtask"];

/// Checks the workspace against [`LAYERS`].
pub(crate) fn run() -> Result<()> {
    let output = step::command("cargo metadata --no-deps --offline --format-version 1")
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", output.status);
    }
    let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
    let offences = offences(&metadata).context("cargo metadata has another shape")?;
    if !offences.is_empty() {
        bail!("the layers are broken (table in xtask/src/layers.rs):\n  {}", offences.join("\n  "));
    }
    Ok(())
}

/// What breaks the table, one sentence each; `None` if this is not the output of `cargo metadata`.
fn offences(metadata: &Value) -> Option<Vec<String>> {
    let packages = metadata["packages"].as_array()?;
    let mut offences = Vec::new();
    for package in packages {
        let name = package["name"].as_str()?;
        if EXEMPT.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == name) else {
            offences.push(format!("{name} has no layer"));
            continue;
        };
        for dependency in package["dependencies"].as_array()? {
            // Only our own crates have a path: Cargo.toml allows no other path dependency.
            if dependency.get("path").is_none_or(Value::is_null) {
                continue;
            }
            let used = dependency["name"].as_str()?;
            if !allowed.contains(&used) {
                let kind = dependency["kind"].as_str().map_or(String::new(), |kind| format!(" ({kind})"));
                offences.push(format!("{name} may not depend on {used}{kind}"));
            }
        }
    }
    Some(offences)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, dependencies: &Value) -> Value {
        json!({ "packages": [{ "name": name, "dependencies": dependencies }] })
    }

    #[test]
    fn what_the_table_lists_passes() {
        let dependencies = json!([
            { "name": "matchlock-proto", "path": "/w/crates/proto", "kind": null },
            { "name": "matchlock-api", "path": "/w/crates/api", "kind": "dev" },
            { "name": "libc", "kind": null },
        ]);
        assert_eq!(offences(&package("matchlock-vmm", &dependencies)), Some(vec![]));
    }

    #[test]
    fn an_edge_upwards_is_named() {
        let dependencies =
            json!([{ "name": "matchlock-sandbox", "path": "/w/crates/sandbox", "kind": null }]);
        assert_eq!(
            offences(&package("matchlock-image", &dependencies)),
            Some(vec!["matchlock-image may not depend on matchlock-sandbox".into()])
        );
    }

    #[test]
    fn tests_and_build_scripts_are_no_way_around() {
        for kind in ["dev", "build"] {
            let dependencies = json!([{ "name": "matchlock-vmm", "path": "/w/crates/vmm", "kind": kind }]);
            let expected = format!("matchlock-guest may not depend on matchlock-vmm ({kind})");
            assert_eq!(offences(&package("matchlock-guest", &dependencies)), Some(vec![expected]));
        }
    }

    #[test]
    fn a_crate_without_a_layer_is_an_offence_and_the_end_to_end_tests_are_not() {
        let any = json!([{ "name": "matchlock", "path": "/w/crates/cli", "kind": null }]);
        assert_eq!(
            offences(&package("matchlock-new", &any)),
            Some(vec!["matchlock-new has no layer".into()])
        );
        assert_eq!(offences(&package("matchlock-tests", &any)), Some(vec![]));
    }

    #[test]
    fn something_else_is_not_taken_for_a_clean_workspace() {
        assert_eq!(offences(&json!({})), None);
        assert_eq!(offences(&json!({ "packages": [{ "name": "matchlock" }] })), None);
    }
}
