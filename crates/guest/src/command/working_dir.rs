//! Entering a command's working directory.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::chown;
use std::path::Path;

use proto::agent::{StartError, WorkingDir};

use super::account::Account;
use super::words;

/// Enters it, making it first if that was asked for. What is made belongs to the command's user.
pub(super) fn enter(wanted: &WorkingDir, account: &Account) -> Result<(), StartError> {
    let path = Path::new(OsStr::from_bytes(&wanted.path));
    let entered = match rustix::process::chdir(path).map_err(io::Error::from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && wanted.create => {
            make(path, account).and_then(|()| Ok(rustix::process::chdir(path)?))
        }
        result => result,
    };
    entered.map_err(|error| StartError::WorkingDir {
        path: path.to_string_lossy().into_owned(),
        reason: words(&error),
    })
}

fn make(path: &Path, account: &Account) -> io::Result<()> {
    let mut ancestors: Vec<_> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    ancestors.reverse();
    for part in ancestors {
        match fs::create_dir(part) {
            Ok(()) => chown(part, Some(account.uid), Some(account.gid))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
