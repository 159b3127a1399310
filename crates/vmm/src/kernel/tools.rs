//! What a kernel build needs on the host, and which Debian package brings it.

use tokio::process::Command;

/// Programs, and the packages they are in.
const PROGRAMS: [(&str, &str); 11] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("strip", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("perl", "perl"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
    ("cp", "coreutils"),
];

/// Headers of libraries that tools of the kernel's own are linked with, and their packages.
const HEADERS: [(&str, &str); 2] = [("stdlib.h", "libc6-dev"), ("gelf.h", "libelf-dev")];

/// Packages that have to be installed first.
pub(super) async fn missing() -> Vec<&'static str> {
    let mut packages: Vec<&str> = Vec::new();
    packages.extend(PROGRAMS.iter().filter(|(name, _)| !in_path(name)).map(|(_, package)| package));
    for (header, package) in HEADERS {
        // Without a compiler nothing can be said about its headers.
        if in_path("gcc") && !has_header(header).await {
            packages.push(package);
        }
    }
    packages.dedup();
    packages
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Asks the compiler, which knows where it looks.
async fn has_header(header: &str) -> bool {
    let mut gcc = Command::new("gcc");
    gcc.args(["-E", "-include", header, "-x", "c", "-o", "/dev/null", "/dev/null"]);
    super::step::run(&mut gcc, "looking for headers", |_| ()).await.is_ok()
}
