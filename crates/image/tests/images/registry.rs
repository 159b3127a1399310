//! The real registry, Docker's `distribution`, on a free port, and `skopeo` to fill it.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::{NamedTempFile, TempDir};

use crate::example::Example;

/// A running registry; ends with the test.
pub(crate) struct Registry {
    process: Child,
    port: u16,
    folder: TempDir,
    /// The user and password that it knows, and its file of them.
    users: Option<(String, NamedTempFile)>,
}

impl Registry {
    /// Without authorization.
    pub(crate) fn start() -> Self {
        Self::with("", "")
    }

    /// For one user and password.
    pub(crate) fn with_password(user: &str, password: &str) -> Self {
        let entry = output("htpasswd", &["-nbB", user, password], "apache2-utils");
        let passwords = NamedTempFile::new().unwrap();
        fs::write(&passwords, entry.trim()).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", passwords.path().display());
        let mut registry = Self::with(&auth, "");
        registry.users = Some((format!("{user}:{password}"), passwords));
        registry
    }

    /// With this part of its configuration file, and these lines in its `http` section.
    pub(crate) fn with(auth: &str, http: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\n{http}{auth}",
            folder.path().join("storage").display()
        );
        fs::write(&config, text).unwrap();
        let mut process = Command::new(program())
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry: {error}; install the package docker-registry"));
        let log = process.stderr.take().unwrap();
        // Built first, so that the process ends with it if it never listens.
        let mut registry = Self { process, port: 0, folder, users: None };
        registry.port = port(log);
        registry
    }

    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Pushes an image; `name` is `repository:tag`.
    pub(crate) fn push(&self, image: &Example, name: &str) {
        self.push_with(image, name, &[]);
    }

    /// Pushes with further arguments of `skopeo copy`.
    pub(crate) fn push_with(&self, image: &Example, name: &str, more: &[&str]) {
        let layout = self.folder.path().join("layout");
        image.write_layout(&layout, "it");
        let source = format!("oci:{}:it", layout.display());
        let target = format!("docker://{}/{name}", self.host());
        let mut arguments = vec!["--insecure-policy", "copy", "-q", "--preserve-digests"];
        arguments.push("--dest-tls-verify=false");
        if let Some((credentials, _)) = &self.users {
            arguments.extend(["--dest-creds", credentials]);
        }
        arguments.extend(more);
        arguments.extend([source.as_str(), target.as_str()]);
        output("skopeo", &arguments, "skopeo");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The registry's program: in `PATH`, or where `scripts/setup --dev` puts it.
fn program() -> PathBuf {
    let name = "docker-registry";
    let cache = env::var_os("MATCHLOCK_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache/matchlock")));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(cache.map(|cache| cache.join("tools/bin")));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// The port that the registry says it listens on. Its log is read to the end, so that it never blocks on it.
fn port(log: ChildStderr) -> u16 {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if let Some((_, port)) = line.split_once("listening on 127.0.0.1:") {
                let digits = port.split(|c: char| !c.is_ascii_digit()).next();
                let _ = sender.send(digits.unwrap_or_default().parse().unwrap());
            }
        }
    });
    receiver.recv_timeout(Duration::from_secs(20)).expect("docker-registry listens within 20 s")
}

/// What a program prints; a program that is missing fails the test and says what to install.
pub(crate) fn output(program: &str, arguments: &[&str], package: &str) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{program}: {error}; run scripts/setup --dev, or install the package {package}")
    });
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
