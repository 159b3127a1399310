//! Builds the guest binary, static and small, so that the host binary can carry it.
//!
//! Cargo cannot yet depend on a binary of another target, so this runs it once more, with a target
//! directory of its own (shared by all profiles) below the one in use.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    let target = format!("{arch}-unknown-linux-gnu");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let workspace = manifest.ancestors().nth(2).expect("crates/sandbox is two levels down");
    // <target dir>/<profile>/build/<package>/out
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target_dir = out.ancestors().nth(4).expect("OUT_DIR is four levels down").join("guest");

    for input in ["Cargo.toml", "Cargo.lock", "crates/guest", "crates/proto", "crates/sys"] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let status = cargo(workspace, &target, &target_dir).status().expect("cargo can be run");
    assert!(
        status.success(),
        "the guest binary could not be built; a static build needs libc.a (Debian: libc6-dev)"
    );
    let guest = target_dir.join(&target).join("guest/matchlock-guest");
    println!("cargo::rustc-env=MATCHLOCK_GUEST={}", guest.display());
}

fn cargo(workspace: &Path, target: &str, target_dir: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    cargo
        .current_dir(workspace)
        .args(["build", "--quiet", "--locked", "--package", "matchlock-guest", "--profile", "guest"])
        .args(["--target", target, "--target-dir"])
        .arg(target_dir);
    // What concerns the host's build only: clippy's driver, flags, the outer build's settings.
    for (name, _) in env::vars_os() {
        let outer = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_") && !matches!(name, "CARGO_HOME" | "CARGO_NET_OFFLINE")
                || matches!(name, "RUSTC_WORKSPACE_WRAPPER" | "RUSTC_WRAPPER" | "RUSTFLAGS" | "RUSTC")
        });
        if outer {
            cargo.env_remove(name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static");
    cargo
}
