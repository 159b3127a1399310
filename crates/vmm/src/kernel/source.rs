//! Where the kernel's source comes from: what the user names, else the archive that Debian's
//! package installs, else that package, downloaded and unpacked without being installed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tokio::process::Command;

use super::build::{BuildError, Progress};
use super::step::run;

/// Debian's package of the long-term kernel that we pin.
pub(super) const PACKAGE: &str = "linux-source-6.12";

/// A kernel source that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A folder, which is copied and never written to.
    Folder(PathBuf),
    /// A tar archive, compressed or not.
    Archive(PathBuf),
}

impl Source {
    /// The source to build, fetched into `temporary` if it is nowhere on this host.
    pub(super) async fn find(
        wanted: Option<&Path>,
        temporary: &Path,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Self, BuildError> {
        if let Some(path) = wanted {
            let failed = |error| BuildError::Source(path.to_owned(), error);
            let path = path.canonicalize().map_err(failed)?;
            return Ok(if path.is_dir() { Self::Folder(path) } else { Self::Archive(path) });
        }
        let archive = Path::new("usr/src").join(format!("{PACKAGE}.tar.xz"));
        let installed = Path::new("/").join(&archive);
        if installed.is_file() {
            return Ok(Self::Archive(installed));
        }
        progress(Progress::Downloading);
        let folder = temporary.join("package");
        let failed = |error| BuildError::Source(folder.clone(), error);
        fs::create_dir_all(&folder).map_err(failed)?;
        let mut download = Command::new("apt-get");
        let download = download.args(["download", "--quiet", PACKAGE]).current_dir(&folder);
        let downloaded = run(download, "downloading the source", |_| ()).await;
        downloaded.map_err(|error| BuildError::NoPackage { package: PACKAGE, source: Box::new(error) })?;
        let package = only_file(&folder).map_err(failed)?;
        let mut unpack = Command::new("dpkg-deb");
        run(unpack.arg("-x").arg(package).arg(&folder), "unpacking the package", |_| ()).await?;
        Ok(Self::Archive(folder.join(archive)))
    }

    /// The source's version, from its top-level Makefile.
    pub(super) async fn version(&self) -> Result<String, BuildError> {
        let path = self.path().to_owned();
        let makefile = match self {
            Self::Folder(path) => fs::read_to_string(path.join("Makefile"))
                .map_err(|error| BuildError::Source(path.join("Makefile"), error))?,
            Self::Archive(path) => {
                let text = Mutex::new(String::new());
                let mut tar = Command::new("tar");
                tar.arg("-xOf").arg(path).args([
                    "--occurrence=1",
                    "--wildcards",
                    "--no-wildcards-match-slash",
                ]);
                let line = |line: &str| {
                    let mut text = text.lock().expect("nothing panics with it");
                    text.push_str(line);
                    text.push('\n');
                };
                run(tar.arg("*/Makefile"), "reading the source's version", line).await?;
                text.into_inner().expect("nothing panics with it")
            }
        };
        version(&makefile).ok_or(BuildError::NotASource(path))
    }

    /// Puts a copy of the source into `folder`.
    pub(super) async fn copy(&self, folder: &Path) -> Result<(), BuildError> {
        fs::create_dir_all(folder).map_err(|error| BuildError::Source(folder.to_owned(), error))?;
        let (mut command, step) = match self {
            Self::Folder(path) => {
                let mut copy = Command::new("cp");
                copy.args(["-a", "--reflink=auto"]).arg(path.join(".")).arg(folder);
                (copy, "copying the source")
            }
            Self::Archive(path) => {
                let mut tar = Command::new("tar");
                // The archive is made of blocks that xz can unpack at the same time.
                tar.env("XZ_DEFAULTS", "--threads=0").arg("-xf").arg(path);
                tar.args(["--strip-components=1", "--no-same-owner", "-C"]).arg(folder);
                (tar, "unpacking the source")
            }
        };
        run(&mut command, step, |_| ()).await
    }

    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Archive(path) => path,
        }
    }
}

fn only_file(folder: &Path) -> io::Result<PathBuf> {
    let first = fs::read_dir(folder)?.next().transpose()?;
    first.map(|entry| entry.path()).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// `VERSION`, `PATCHLEVEL`, `SUBLEVEL` and `EXTRAVERSION` of a kernel's Makefile.
fn version(makefile: &str) -> Option<String> {
    let value = |name: &str| {
        let values = makefile.lines().filter_map(|line| line.strip_prefix(name));
        values.filter_map(|rest| rest.trim_start().strip_prefix('=')).map(str::trim).next()
    };
    let number = |name| value(name).filter(|text| text.parse::<u32>().is_ok());
    let extra = value("EXTRAVERSION").unwrap_or_default();
    Some(format!("{}.{}.{}{extra}", number("VERSION")?, number("PATCHLEVEL")?, number("SUBLEVEL")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_makefile() {
        let makefile = "# SPDX\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\nNAME = x\n";
        assert_eq!(version(makefile).unwrap(), "6.12.117");
        assert_eq!(
            version(&makefile.replace("EXTRAVERSION =", "EXTRAVERSION = -rc1")).unwrap(),
            "6.12.117-rc1"
        );
        assert_eq!(version("VERSION = 1.0\nall:\n"), None);
    }
}
