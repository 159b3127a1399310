//! The kernels built on this host, one folder each: `<cache>/kernels/<key>/{vmlinux,config,kernel.json}`.
//! A folder appears whole or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use api::{Explain, Kind};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::check::{InvalidKernel, check};
use super::fragment::{FRAGMENT, fragment_digest, hex};

/// The architecture that kernels are built for.
pub(super) const ARCH: &str = "x86_64";

/// All kernels in one cache folder.
#[derive(Debug, Clone)]
pub struct Kernels {
    cache: PathBuf,
}

/// One built kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Its name: a digest of what it was built from.
    pub key: String,
    /// The uncompressed vmlinux.
    pub path: PathBuf,
    /// Length of the vmlinux, bytes.
    pub size: u64,
    /// What it was built from.
    pub info: Info,
}

/// `kernel.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The source's version, `6.12.63`.
    pub version: String,
    /// SHA-256 of the configuration fragment, hexadecimal.
    pub fragment: String,
    /// Architecture, as the kernel calls it.
    pub arch: String,
    /// When it was built, seconds since the Unix epoch.
    pub built: u64,
}

/// A kernel that is not there, or cannot be used.
#[derive(Debug, Error)]
pub enum KernelError {
    /// None was built from this version's configuration.
    #[error("there is no kernel yet")]
    None,
    /// No kernel of that name.
    #[error("kernel {0:?} not found")]
    NotFound(String),
    /// The beginning of a name that several have.
    #[error("kernel {0:?} is ambiguous")]
    Ambiguous(String),
    /// A file that cannot be booted.
    #[error("{path} cannot be used as a kernel", path = .path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Why.
        source: InvalidKernel,
    },
    /// The cache cannot be read or changed.
    #[error("cannot access {path}", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
}

impl Explain for KernelError {
    fn kind(&self) -> Kind {
        match self {
            Self::None | Self::NotFound(_) => Kind::NotFound,
            Self::Ambiguous(_) => Kind::InvalidInput,
            Self::Invalid { source, .. } => source.kind(),
            Self::Io(_, error) => api::error::io_kind(error),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::None => {
                Some("build it with `matchlock kernel build` (about five minutes, once)".to_owned())
            }
            Self::NotFound(_) => Some("`matchlock kernel ls` lists those there are".to_owned()),
            Self::Ambiguous(_) => Some("give more of its name".to_owned()),
            Self::Invalid { source, .. } => source.hint(),
            Self::Io(..) => None,
        }
    }
}

impl Kernel {
    /// Whether it was built from the configuration of this version of ours.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.info.fragment == fragment_digest() && self.info.arch == ARCH
    }

    /// The version as numbers, to find the newest.
    fn version(&self) -> Vec<u32> {
        self.info.version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
    }
}

impl Info {
    /// The name of a kernel built from this.
    pub(super) fn key(version: &str) -> String {
        let mut digest = Sha256::new();
        for part in [version, FRAGMENT, ARCH] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        hex(&digest.finalize()[..8])
    }
}

impl Kernels {
    /// The kernels in `cache`, which need not exist yet.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self { cache: cache.into() }
    }

    /// Where they are.
    pub(super) fn folder(&self) -> PathBuf {
        self.cache.join("kernels")
    }

    /// Where they are made.
    pub(super) fn temporary(&self) -> PathBuf {
        self.cache.join("tmp")
    }

    /// All of them, the newest version first.
    ///
    /// # Errors
    /// [`KernelError::Io`].
    pub fn list(&self) -> Result<Vec<Kernel>, KernelError> {
        let folder = self.folder();
        let failed = |error| KernelError::Io(folder.clone(), error);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut kernels = Vec::new();
        for entry in entries {
            // What is not a kernel is not ours to complain about.
            kernels.extend(read(&entry.map_err(failed)?.path()));
        }
        kernels.sort_by_key(|kernel| std::cmp::Reverse((kernel.version(), kernel.info.built)));
        Ok(kernels)
    }

    /// The kernel of that name, or of the one name that begins so.
    ///
    /// # Errors
    /// [`KernelError::NotFound`], [`KernelError::Ambiguous`], [`KernelError::Io`].
    pub fn named(&self, name: &str) -> Result<Kernel, KernelError> {
        let mut matching = self.list()?.into_iter().filter(|kernel| kernel.key.starts_with(name));
        match (matching.next(), matching.next()) {
            (Some(kernel), None) if !name.is_empty() => Ok(kernel),
            (Some(_), Some(_)) if !name.is_empty() => Err(KernelError::Ambiguous(name.to_owned())),
            _ => Err(KernelError::NotFound(name.to_owned())),
        }
    }

    /// Removes the kernel of that name. Machines that run it are not affected.
    ///
    /// # Errors
    /// As [`Kernels::named`].
    pub fn remove(&self, name: &str) -> Result<Kernel, KernelError> {
        let kernel = self.named(name)?;
        let folder = self.folder().join(&kernel.key);
        // Out of sight first, so that nobody finds half of it.
        let aside = self.temporary().join(format!("removed-{}", kernel.key));
        let removed = fs::create_dir_all(self.temporary())
            .and_then(|()| fs::rename(&folder, &aside))
            .and_then(|()| fs::remove_dir_all(&aside));
        removed.map_err(|error| KernelError::Io(folder, error))?;
        Ok(kernel)
    }

    /// The kernel to boot if nobody says otherwise: built from this version's configuration, from
    /// the newest source.
    ///
    /// # Errors
    /// [`KernelError::None`], [`KernelError::Io`].
    pub fn default_kernel(&self) -> Result<Kernel, KernelError> {
        self.list()?.into_iter().find(Kernel::is_current).ok_or(KernelError::None)
    }

    /// The kernel to boot: `wanted` if somebody said so, checked, else the default one.
    ///
    /// # Errors
    /// See [`KernelError`].
    pub fn choose(&self, wanted: Option<&Path>) -> Result<PathBuf, KernelError> {
        let Some(path) = wanted else { return self.default_kernel().map(|kernel| kernel.path) };
        let absolute = path.canonicalize();
        let checked = absolute.map_err(InvalidKernel::from).and_then(|path| check(&path).map(|_| path));
        checked.map_err(|source| KernelError::Invalid { path: path.to_owned(), source })
    }
}

/// The kernel in `folder`, if that is one.
fn read(folder: &Path) -> Option<Kernel> {
    let info = fs::read(folder.join("kernel.json")).ok()?;
    let path = folder.join("vmlinux");
    let size = path.metadata().ok()?.len();
    let key = folder.file_name()?.to_str()?.to_owned();
    Some(Kernel { key, path, size, info: serde_json::from_slice(&info).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(cache: &Path, key: &str, version: &str, fragment: &str) {
        let folder = cache.join("kernels").join(key);
        fs::create_dir_all(&folder).unwrap();
        let (version, fragment) = (version.to_owned(), fragment.to_owned());
        let info = Info { version, fragment, arch: ARCH.to_owned(), built: 1 };
        fs::write(folder.join("kernel.json"), serde_json::to_vec(&info).unwrap()).unwrap();
        fs::write(folder.join("vmlinux"), b"kernel").unwrap();
    }

    #[test]
    fn the_default_is_the_newest_of_this_configuration() {
        let cache = tempfile::tempdir().unwrap();
        let kernels = Kernels::new(cache.path());
        assert!(matches!(kernels.default_kernel(), Err(KernelError::None)));
        assert!(kernels.list().unwrap().is_empty());
        add(cache.path(), "aa01", "6.12.9", &fragment_digest());
        add(cache.path(), "aa02", "6.12.63", &fragment_digest());
        add(cache.path(), "bb01", "6.13.1", "another configuration");
        fs::create_dir_all(cache.path().join("kernels/unfinished")).unwrap();
        assert_eq!(kernels.default_kernel().unwrap().key, "aa02");
        let order: Vec<String> = kernels.list().unwrap().into_iter().map(|kernel| kernel.key).collect();
        assert_eq!(order, ["bb01", "aa02", "aa01"]);
        assert!(matches!(kernels.remove("aa"), Err(KernelError::Ambiguous(_))));
        assert!(matches!(kernels.remove("cc"), Err(KernelError::NotFound(_))));
        assert!(matches!(kernels.remove(""), Err(KernelError::NotFound(_))));
        assert_eq!(kernels.remove("aa02").unwrap().info.version, "6.12.63");
        assert_eq!(kernels.default_kernel().unwrap().key, "aa01");
        assert_eq!(fs::read_dir(cache.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_kernel_that_was_asked_for_is_checked() {
        let cache = tempfile::tempdir().unwrap();
        let text = cache.path().join("vmlinux");
        fs::write(&text, b"not a kernel").unwrap();
        let error = Kernels::new(cache.path()).choose(Some(&text)).unwrap_err();
        assert!(matches!(error, KernelError::Invalid { source: InvalidKernel::NotElf, .. }));
        let error = Kernels::new(cache.path()).choose(Some(Path::new("/nowhere"))).unwrap_err();
        assert!(error.hint().unwrap().contains("kernel build"));
    }
}
