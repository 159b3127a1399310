//! Sandboxes as commands name them: by ID, by the beginning of one, or by name.

use std::sync::Arc;

use api::{Explain, Kind, SandboxId, Status};
use rpc::client::{Client, ClientError};
use sandbox::home::Home;
use sandbox::state::{Record, State};
use sandbox::{SOCKET, Site};

use crate::failure::Failure;
use crate::host;

/// Where sandboxes are on this host; what is missing of it is made.
pub(crate) fn site() -> Result<Site, Failure> {
    let home = Home::open(&host::home()?)?;
    let state = Arc::new(State::open(&home.database())?);
    Ok(Site { home, state, images: host::store()? })
}

/// The sandbox that the user means.
pub(crate) fn find(site: &Site, named: &str) -> Result<Record, Failure> {
    Ok(site.state.find(named)?)
}

/// Those that the user names, or all.
pub(crate) fn chosen(site: &Site, named: &[String], all: bool) -> Result<Vec<Record>, Failure> {
    match (named, all) {
        ([], false) => Err(Failure::usage("VM ID required")),
        ([], true) => Ok(site.state.list()?),
        (_, true) => Err(Failure::usage("name sandboxes or all of them, not both")),
        (named, false) => named.iter().map(|named| find(site, named)).collect(),
    }
}

/// A connection to the owner of a sandbox.
pub(crate) async fn connect(site: &Site, record: &Record) -> Result<Client, Failure> {
    match Client::connect(&site.home.directory(record.id), SOCKET).await {
        Ok(client) => Ok(client),
        Err(error) => Err(Unreachable { id: record.id, status: site.status(record), source: error }.into()),
    }
}

/// A sandbox whose owner does not answer.
#[derive(Debug, thiserror::Error)]
#[error("sandbox {id} cannot be reached (status: {status})")]
struct Unreachable {
    id: SandboxId,
    status: Status,
    source: ClientError,
}

impl Explain for Unreachable {
    fn kind(&self) -> Kind {
        self.source.kind()
    }

    fn hint(&self) -> Option<String> {
        let id = self.id;
        Some(match self.status {
            Status::Running => format!("its socket is gone; end it with `matchlock kill {id}`"),
            Status::Starting => "wait until it runs: matchlock list".to_owned(),
            Status::Stopping => "it is ending".to_owned(),
            Status::Stopped | Status::Failed | Status::Crashed => {
                format!("start it again with `matchlock start {id}`")
            }
        })
    }
}

/// What became of a sandbox that was not named but found: that it has gone, or been started, since is no
/// failure.
pub(crate) fn unless_changed<T>(outcome: Result<T, impl Into<Failure>>) -> Result<Option<T>, Failure> {
    match outcome.map_err(Into::into) {
        Ok(value) => Ok(Some(value)),
        Err(failure) if matches!(failure.kind(), Kind::NotFound | Kind::Conflict) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Does something to each; goes on after a failure, and reports each but the last, which is the
/// outcome.
pub(crate) fn each<T>(records: Vec<T>, mut act: impl FnMut(T) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut failed = None;
    for record in records {
        if let Err(failure) = act(record)
            && let Some(earlier) = failed.replace(failure)
        {
            let earlier: Failure = earlier;
            earlier.report();
        }
    }
    failed.map_or(Ok(()), Err)
}
