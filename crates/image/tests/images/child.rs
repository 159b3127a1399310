//! Parts of tests that need a process of their own: another environment, a small disk, a death.
//! The parent starts this same program with the job in its environment.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::Arc;

use image::import::{ImportOptions, Input, import};
use image::progress::Silent;
use image::pull::{PullOptions, pull};
use image::reference::Reference;
use image::registry::RegistryOptions;
use image::store::{Cancel, Store};

const JOB: &str = "MATCHLOCK_TEST_JOB";
const STORE: &str = "MATCHLOCK_TEST_STORE";
const WHAT: &str = "MATCHLOCK_TEST_WHAT";

/// A command that does a job, `pull`, `pull-plain` or `import`, with a store.
pub(crate) fn command(job: &str, store: &std::path::Path, what: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child::job", "--nocapture", "--test-threads=1"]);
    command.env(JOB, job).env(STORE, store).env(WHAT, what).env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null());
    command
}

/// Runs it; what it printed, or what it said when it failed.
pub(crate) fn run(mut command: Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The job, where there is one; in an ordinary run of the tests there is not.
#[test]
fn job() {
    let Ok(job) = std::env::var(JOB) else { return };
    let store = Store::open(std::env::var(STORE).unwrap()).unwrap();
    let what = std::env::var(WHAT).unwrap();
    let done = match job.as_str() {
        "pull" | "pull-plain" => do_pull(&store, &what, job == "pull-plain"),
        "import" => do_import(&store, &what),
        other => panic!("no such job: {other}"),
    };
    match done {
        Ok(digest) => println!("digest {digest}"),
        Err(error) => panic!("failed: {error}"),
    }
}

fn do_pull(store: &Store, reference: &str, plain_http: bool) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let registry = RegistryOptions { plain_http, ..RegistryOptions::default() };
    let options = PullOptions { registry, ..PullOptions::default() };
    let reference: Reference = reference.parse().unwrap();
    let pulled = runtime.block_on(pull(store, &reference, &options, Arc::new(Silent)));
    pulled.map(|it| it.image.digest.to_string()).map_err(|error| in_full(&error))
}

/// Imports a path, or standard input if it is `-`.
fn do_import(store: &Store, path: &str) -> Result<String, String> {
    let input = match path {
        "-" => {
            println!("reading");
            Input::Stream(Box::new(std::io::stdin()) as Box<dyn Read + Send>)
        }
        path => Input::Path(path.into()),
    };
    let options = ImportOptions::new("imported".parse().unwrap());
    let imported = import(store, input, &options, &Silent, &Cancel::default());
    imported.map(|image| image.digest.to_string()).map_err(|error| in_full(&error))
}

/// An error with its kind, hint and sources.
fn in_full(error: &dyn api::Explain) -> String {
    let mut text = format!("{error} ({:?}; {:?})", error.kind(), error.hint());
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
