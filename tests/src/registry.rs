//! A registry of a test's own: docker-registry on a loopback port that the kernel chooses.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::oci::Layout;
use crate::tool;

/// Who may use a registry that wants a login.
pub const USER: &str = "alice";
/// Her password.
pub const PASSWORD: &str = "wonderland";
/// Both as `htpasswd -B` writes them, the one form that docker-registry reads.
const HTPASSWD: &str = "alice:$2y$05$jUHHdaGbnvYnOCCRQH6XJ.Qb6sxgFzTgJNhNh3SFhZOYshYYpMy1u\n";

/// A running registry; it ends, and its images are gone, when dropped.
#[derive(Debug)]
pub struct Registry {
    process: Child,
    address: String,
    login: bool,
    _storage: TempDir,
}

impl Registry {
    /// A registry that anybody may use.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(false)
    }

    /// A registry that only [`USER`] may use.
    #[must_use]
    pub fn start_with_login() -> Self {
        Self::launch(true)
    }

    /// `127.0.0.1:PORT`, as it stands at the front of a reference.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Puts an image into the registry as `name` (`repository:tag`), and returns its reference.
    ///
    /// # Panics
    /// When skopeo cannot push it.
    #[must_use]
    pub fn push(&self, image: &Layout, name: &str) -> String {
        let reference = format!("{}/{name}", self.address);
        let mut skopeo = Command::new(tool::find("skopeo"));
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--all", "--dest-tls-verify=false"]);
        if self.login {
            skopeo.args(["--dest-creds", &format!("{USER}:{PASSWORD}")]);
        }
        skopeo.arg(image.transport()).arg(format!("docker://{reference}"));
        let output = skopeo.stdin(Stdio::null()).output().expect("skopeo runs");
        assert!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
        reference
    }

    fn launch(login: bool) -> Self {
        let storage = tempfile::tempdir().expect("a temporary directory");
        let htpasswd = storage.path().join("htpasswd");
        fs::write(&htpasswd, HTPASSWD).expect("the temporary directory is ours");
        let mut command = Command::new(tool::find("docker-registry"));
        command
            .env_clear()
            .env("REGISTRY_HTTP_ADDR", "127.0.0.1:0")
            .env("REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY", storage.path().join("images"))
            .env("REGISTRY_STORAGE_DELETE_ENABLED", "true");
        if login {
            command.env("REGISTRY_AUTH_HTPASSWD_REALM", "test").env("REGISTRY_AUTH_HTPASSWD_PATH", &htpasswd);
        }
        let config = storage.path().join("config.yml");
        fs::write(&config, CONFIG).expect("the temporary directory is ours");
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("docker-registry runs");
        let log = process.stderr.take().expect("it is a pipe");
        // Built first, so that the process ends with it if it never listens.
        let mut registry = Self { process, address: String::new(), login, _storage: storage };
        registry.address = listening_address(log);
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it is our child");
    }
}

/// The rest comes from the environment.
const CONFIG: &str = "version: 0.1\nlog: {level: info}\nstorage: {filesystem: {}}\n";

/// What docker-registry says once it can be connected to, before its address.
const LISTENING: &str = "listening on ";

/// Reads the log for the address, and on to its end so that the registry never blocks on it.
fn listening_address(log: ChildStderr) -> String {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once(LISTENING) {
                let address: String =
                    rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
                let _ = sender.send(address);
            }
        }
    });
    receiver.recv_timeout(Duration::from_secs(20)).expect("docker-registry listens within 20 s")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn can_read(reference: &str, credentials: Option<&str>) -> bool {
        let mut skopeo = Command::new(tool::find("skopeo"));
        skopeo.args(["inspect", "--tls-verify=false"]);
        skopeo.args(
            credentials.map_or(["--no-creds".into(), "--raw".into()], |it| ["--creds".into(), it.to_owned()]),
        );
        skopeo.arg(format!("docker://{reference}")).output().unwrap().status.success()
    }

    #[test]
    fn what_is_pushed_can_be_read_by_whom_the_registry_lets() {
        let image = Layout::build(&[&[0; 1024]], &json!({ "Cmd": ["/x"] }));
        let open = Registry::start();
        assert!(can_read(&open.push(&image, "team/app:1"), None));
        let closed = Registry::start_with_login();
        let reference = closed.push(&image, "app:1");
        assert!(!can_read(&reference, None));
        assert!(!can_read(&reference, Some("alice:wrong")));
        assert!(can_read(&reference, Some(&format!("{USER}:{PASSWORD}"))));
    }
}
