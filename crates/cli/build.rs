//! Stamps the commit and the date of the build into the version line.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-changed=../../.git/refs/heads");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let commit = output("git", &["rev-parse", "--short=12", "HEAD"]);
    let date = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(epoch) => output("date", &["-u", "+%Y-%m-%d", "-d", &format!("@{epoch}")]),
        Err(_) => output("git", &["log", "-1", "--format=%cs"]),
    };
    let unknown = || "unknown".to_owned();
    println!("cargo::rustc-env=MATCHLOCK_COMMIT={}", commit.unwrap_or_else(unknown));
    println!("cargo::rustc-env=MATCHLOCK_BUILT={}", date.unwrap_or_else(unknown));
}

/// The first line a program prints, if it runs and succeeds.
fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next().map(str::to_owned).filter(|line| !line.is_empty())
}
