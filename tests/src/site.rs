//! A small internet of a test's own: real servers at addresses that look public, in a network namespace,
//! and a user's machine with a cable to it, in another one. The binary under test runs on that machine,
//! so nothing that a sandbox does can reach any other host. See `servers/site.sh` for what is where.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, getgid, getuid};
use serde_json::{Map, Value};

use crate::process::family;
use crate::{Matchlock, Running, tool};

/// nginx: `www.good.test` and `cdn.evil.test` themselves, other names of `good.test` from [`WEB`].
pub const NGINX: IpAddr = address(10);
/// `web.py` for names of `good.test`.
pub const WEB: IpAddr = address(11);
/// SSH, TCP echo on port 7, a server that speaks first on 25, TLS that is no HTTP on 853, UDP echo on 9999.
pub const TCP: IpAddr = address(14);
/// `web.py` for names of `evil.test`, which no test allows.
pub const EVIL: IpAddr = address(15);
/// `web.py` at a private address, which tests may allow.
pub const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The system's name server.
pub const DNS: IpAddr = address(53);
/// The user's machine.
pub const SELF: IpAddr = IpAddr::V4(Ipv4Addr::new(45, 33, 8, 2));
/// A name server that nobody has configured.
pub const OTHER_DNS: IpAddr = address(54);
/// A name server for `--dns-servers`.
pub const CHOSEN_DNS: IpAddr = address(55);

/// How long the servers may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The namespaces and their servers; they end with the process that started them.
#[derive(Debug)]
pub struct Site {
    /// Its standard input is what keeps it alive.
    holder: Running,
    directory: PathBuf,
    /// The names that were changed, and those that were not.
    zone: Mutex<Map<String, Value>>,
}

impl Site {
    /// One for all tests of a process.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Site> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts one.
    ///
    /// # Panics
    /// When that fails, with what the servers said.
    #[must_use]
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory").keep();
        let mut command = Command::new(tool::find("unshare"));
        if !getuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "--mount", "--pid", "--fork", "--kill-child"]);
        command.arg(tool::source_tree().join("tests/servers/site.sh")).arg(&directory);
        // For nginx, which scripts/setup does not install as a package.
        command.env("PATH", tool::search_path()).stdin(Stdio::piped());
        let holder = Running::start(&mut command, START_LIMIT);
        for server in ["dns", "web", "sockets", "own", "nginx"] {
            holder.wait_for_stdout(&format!("ready: {server}\n"));
        }
        let zone = fs::read(directory.join("zone.json")).expect("site.sh has written it");
        let zone = serde_json::from_slice(&zone).expect("it is an object");
        Self { holder, directory, zone: Mutex::new(zone) }
    }

    /// The certificate of the authority that the servers' certificates are from.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.join("certificates/ca.pem")
    }

    /// The private key of the user `git` of the SSH server on [`TCP`].
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn ssh_key(&self) -> String {
        fs::read_to_string(self.directory.join("user")).expect("site.sh has made it")
    }

    /// The absolute path of the git repository, for SSH.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.directory.join("git/repo.git")
    }

    /// The binary under test, as a user of this site has it.
    #[must_use]
    pub fn matchlock(&self) -> Matchlock {
        let mut matchlock = Matchlock::new();
        matchlock.enter(self.entrance(), &self.authority());
        matchlock
    }

    /// A program on the user's machine.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let (first, rest) = self.entrance();
        let mut command = Command::new(first);
        command.args(rest).arg(program.as_ref()).stdin(Stdio::null());
        command.env("SSL_CERT_FILE", self.authority());
        command
    }

    /// A further server, where the others are.
    ///
    /// # Panics
    /// When they are gone.
    #[must_use]
    pub fn server(&self, program: impl AsRef<Path>) -> Command {
        let network = |pid: &Pid| fs::read_link(format!("/proc/{}/ns/net", pid.as_raw_nonzero())).ok();
        let users = network(&self.holder.pid());
        let servers = family(self.holder.pid()).into_iter().find(|pid| network(pid) != users);
        let servers = servers.expect("they live as long as the site").as_raw_nonzero().to_string();
        let mut command = Command::new(tool::find("nsenter"));
        command.args(["--target", &servers, "--net", "--mount"]);
        if !getuid().is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg(program.as_ref()).stdin(Stdio::null());
        command
    }

    /// Gives a name other answers: see `servers/dns.py` for their form.
    ///
    /// # Panics
    /// When the zone cannot be written.
    pub fn answer(&self, name: &str, answers: Value) {
        let mut zone = self.zone.lock().expect("no holder of the lock panics");
        zone.insert(name.to_owned(), answers);
        // At once, since it is read for every query.
        let mut file = tempfile::NamedTempFile::new_in(&self.directory).expect("the directory is ours");
        file.write_all(Value::Object(zone.clone()).to_string().as_bytes()).expect("the directory is ours");
        file.persist(self.directory.join("zone.json")).expect("the directory is ours");
    }

    /// The queries that any name server got for names that contain `part`.
    #[must_use]
    pub fn queries(&self, part: &str) -> Vec<Value> {
        let named =
            |line: &Value| line["name"].as_str().is_some_and(|name| name.to_lowercase().contains(part));
        self.log("dns.jsonl").into_iter().filter(named).collect()
    }

    /// The connections and requests that servers at `address` got, of `web.py`.
    #[must_use]
    pub fn web(&self, address: IpAddr) -> Vec<Value> {
        let address = address.to_string();
        self.log("requests.jsonl").into_iter().filter(|line| line["server"] == address.as_str()).collect()
    }

    /// The requests of `web.py` whose target contains `part`.
    #[must_use]
    pub fn requests(&self, part: &str) -> Vec<Value> {
        let asked = |line: &Value| line["target"].as_str().is_some_and(|target| target.contains(part));
        self.log("requests.jsonl").into_iter().filter(asked).collect()
    }

    /// What a service of `sockets.py` got.
    #[must_use]
    pub fn service(&self, name: &str) -> Vec<Value> {
        self.log("sockets.jsonl").into_iter().filter(|line| line["service"] == name).collect()
    }

    /// Nothing ever came to an address that is not public but [`INSIDE`], to the user's machine itself, or
    /// to the other name server.
    ///
    /// # Panics
    /// When something did.
    pub fn assert_untouched(&self) {
        let inside = INSIDE.to_string();
        let public = |line: &Value| {
            line["server"].as_str().is_some_and(|server| {
                server.starts_with("45.33.7.") || server.starts_with("2600:") || server == inside
            })
        };
        let touched: Vec<Value> =
            self.log("requests.jsonl").into_iter().filter(|line| !public(line)).collect();
        assert!(touched.is_empty(), "private addresses, or our own, were reached: {touched:?}");
        let other = OTHER_DNS.to_string();
        let asked: Vec<Value> =
            self.log("dns.jsonl").into_iter().filter(|line| line["server"] == other.as_str()).collect();
        assert!(asked.is_empty(), "the other name server was asked: {asked:?}");
    }

    /// No file of the servers' has `text` in it, but those of the named servers.
    ///
    /// # Panics
    /// When one has.
    pub fn assert_unseen(&self, text: &str, lines: impl Fn(&Value) -> bool) {
        for file in ["requests.jsonl", "sockets.jsonl", "dns.jsonl"] {
            let seen = self.log(file).into_iter().find(|line| lines(line) && line.to_string().contains(text));
            assert!(seen.is_none(), "{text} was seen: {seen:?}");
        }
    }

    fn log(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.directory.join(file)).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The words in front of a command that is to run in here, as the user who started the test.
    fn entrance(&self) -> (PathBuf, Vec<String>) {
        let pid = self.holder.pid().as_raw_nonzero().to_string();
        let mut words =
            vec!["--target", &pid, "--net", "--mount"].into_iter().map(str::to_owned).collect::<Vec<_>>();
        if !getuid().is_root() {
            words.extend(["--user", "--preserve-credentials", "unshare", "--user"].map(str::to_owned));
            words.push(format!("--map-user={}", getuid().as_raw()));
            words.push(format!("--map-group={}", getgid().as_raw()));
        }
        (tool::find("nsenter"), words)
    }
}

const fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(45, 33, 7, last))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn curl(site: &Site, words: &[&str]) -> String {
        let mut command = site.command(tool::find("curl"));
        command.args(["-sS", "--max-time", "20", "--cacert"]).arg(site.authority()).args(words);
        Running::start(&mut command, Duration::from_secs(30)).wait().success().stdout_text()
    }

    #[test]
    fn a_site_has_its_own_names_servers_and_certificates_and_no_other_host() {
        let site = Site::start();
        let mut there = site.server(tool::find("curl"));
        let there = there.args(["-sS", "http://45.33.7.10/hello"]);
        assert_eq!(
            Running::start(there, START_LIMIT).wait().success().stdout_text(),
            "hello over HTTP/1.1\n"
        );
        assert_eq!(curl(&site, &["https://www.good.test/hello"]), "hello over HTTP/2.0\n");
        assert!(curl(&site, &["https://api.good.test/reflect?here=1"]).contains("here=1"));
        assert_eq!(site.requests("here=1")[0]["server"], WEB.to_string());
        assert!(!site.queries("api.good.test").is_empty());
        site.assert_untouched();
        site.answer("new.good.test", json!({ "A": ["10.66.0.1"] }));
        let _ = curl(&site, &["-k", "https://new.good.test/x"]);
        assert!(std::panic::catch_unwind(|| site.assert_untouched()).is_err());
        let mut outside = site.command(tool::find("curl"));
        let outside = outside.args(["-sS", "--max-time", "5", "https://8.8.8.8/"]);
        assert_eq!(Running::start(outside, Duration::from_secs(10)).wait().code, Some(7));
        let directory = site.directory.clone();
        let output = site.holder.wait();
        assert_eq!(output.code, Some(0), "{}", output.stderr_text());
        assert!(!directory.exists());
    }
}
