//! What must be in a guest kernel: the configuration fragment, and the check that a finished
//! configuration contains all of it.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

/// The fragment that is applied on top of `make tinyconfig`.
pub(super) const FRAGMENT: &str = include_str!("../../../../kernel/matchlock.config");

/// An option that the fragment wants and the final configuration does not have: `olddefconfig`
/// drops without a word what lacks a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// As in the fragment, `CONFIG_EROFS_FS=y`.
    pub wanted: String,
    /// The value it has instead; `n` if it is not set or not known.
    pub found: String,
}

/// Identifies the fragment: what a kernel was built from is part of its name.
pub(super) fn fragment_digest() -> String {
    hex(&Sha256::digest(FRAGMENT))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The options of `fragment` that `config` (a whole `.config`) does not have as wanted.
pub(super) fn dropped(fragment: &str, config: &str) -> Vec<Dropped> {
    let have: HashMap<&str, &str> = config.lines().filter_map(option).collect();
    let wanted = fragment.lines().filter_map(option);
    let missing = wanted.filter_map(|(name, value)| {
        let found = *have.get(name).unwrap_or(&"n");
        (found != value).then(|| Dropped { wanted: format!("{name}={value}"), found: found.to_owned() })
    });
    missing.collect()
}

/// `CONFIG_X=value`, or `# CONFIG_X is not set`, which means `n`.
fn option(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if let Some(name) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
        return name.starts_with("CONFIG_").then_some((name, "n"));
    }
    line.split_once('=').filter(|(name, _)| name.starts_with("CONFIG_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_that_olddefconfig_changed_is_named() {
        let fragment =
            "# a comment\nCONFIG_A=y\nCONFIG_B=n\nCONFIG_C=n\nCONFIG_D=64\nCONFIG_E=y\nCONFIG_F=\"x=y\"\n";
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_D=8\nCONFIG_F=\"x=y\"\n";
        let dropped = dropped(fragment, config);
        let dropped: Vec<_> = dropped.iter().map(|option| (&*option.wanted, &*option.found)).collect();
        assert_eq!(dropped, [("CONFIG_C=n", "y"), ("CONFIG_D=64", "8"), ("CONFIG_E=y", "n")]);
    }

    #[test]
    fn the_fragment_contradicts_itself_nowhere() {
        let mut seen = HashMap::new();
        for (name, value) in FRAGMENT.lines().filter_map(option) {
            assert_eq!(seen.insert(name, value), None, "{name} is there twice");
        }
        assert!(seen.len() > 150);
        for name in
            ["CONFIG_PVH", "CONFIG_VIRTIO_MMIO", "CONFIG_EROFS_FS", "CONFIG_OVERLAY_FS", "CONFIG_ACPI"]
        {
            assert_eq!(seen.get(name), Some(&"y"), "{name}");
        }
    }
}
