//! An OpenSSH server of our own, on a port of the loopback interface, and its client: what people
//! use to run one command on another machine.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use harness::{Running, tool};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(600);

/// For root: the server needs a user and a directory for its unprivileged half. Both are made in a
/// mount table of its own, where root also has an empty home, and so no profile that takes time.
const AS_ROOT: &str = "
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
printf 'root:x:0:0:root:%s:/bin/sh\\nsshd:x:65533:65533::/run/sshd:/bin/false\\n' \"$PWD\" >passwd
mount --bind passwd /etc/passwd
exec \"$@\"
";

/// A running server.
pub(crate) struct Ssh {
    port: u16,
    directory: TempDir,
    _server: Running,
}

impl Ssh {
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        for key in ["host", "user"] {
            let mut keygen = Command::new(tool::find("ssh-keygen"));
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", key]).current_dir(path).stdin(Stdio::null());
            let _ = Running::start(&mut keygen, LIMIT).wait().success();
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let here = path.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nAuthorizedKeysFile {here}/user.pub\n\
             PidFile none\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        );
        fs::write(path.join("config"), config)?;
        let server = Running::start(&mut server(path)?, LIMIT);
        server.wait_for_stderr("Server listening");
        Ok(Self { port, directory, _server: server })
    }

    /// `ssh localhost true` over a connection of its own.
    pub(crate) fn run_true(&self) -> Duration {
        let mut ssh = Command::new(tool::find("ssh"));
        ssh.args(["-F", "/dev/null", "-i", "user", "-p", &self.port.to_string()]);
        for option in [
            "BatchMode=yes",
            "ControlMaster=no",
            "ControlPath=none",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "LogLevel=ERROR",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["127.0.0.1", "true"]).current_dir(self.directory.path()).stdin(Stdio::null());
        Running::start(&mut ssh, LIMIT).wait().success().duration
    }
}

/// The server in the foreground, with what is in `directory`.
fn server(directory: &Path) -> Result<Command> {
    // Not in everybody's PATH, and the server insists on an absolute one.
    let usual = PathBuf::from("/usr/sbin/sshd");
    let sshd = if usual.is_file() { usual } else { tool::find("sshd") };
    let mut server = if fs::metadata("/proc/self")?.uid() == 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-e", "-c", AS_ROOT, "sh"]).arg(&sshd);
        unshare
    } else {
        Command::new(&sshd)
    };
    server.args(["-D", "-e", "-f", "config"]).current_dir(directory).stdin(Stdio::null());
    Ok(server)
}
