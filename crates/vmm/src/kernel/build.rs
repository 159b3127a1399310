//! Building a kernel: source, configuration, verification, compilation, publication.
//!
//! One build at a time for each cache, held by a lock on a file; everything happens in one folder
//! that is removed however the build ends, and what a killed process left there is removed by the
//! next one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::{Explain, Kind};
use rustix::io::FdFlags;
use thiserror::Error;
use tokio::process::Command;

use super::check::{InvalidKernel, check};
use super::fragment::{Dropped, FRAGMENT, dropped, fragment_digest};
use super::source::Source;
use super::step::run;
use super::store::{ARCH, Info, Kernel, KernelError, Kernels};
use super::tools;

/// What to build and how.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// A source folder or a tar archive; Debian's `linux-source` package if `None`.
    pub source: Option<PathBuf>,
    /// Compilers at a time; as many as there are CPUs if `None`.
    pub jobs: Option<usize>,
    /// Build it even if there is one already.
    pub force: bool,
}

/// What a build is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Another build of the same cache is running.
    Waiting,
    /// The source is fetched from the package repository.
    Downloading,
    /// The source is copied or unpacked.
    Unpacking,
    /// The configuration is made and verified.
    Configuring,
    /// Compiling.
    Compiling {
        /// Files compiled so far; about 1900 in all.
        files: u32,
    },
}

/// Why no kernel was built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// Programs or headers that the build needs.
    #[error("building a kernel needs what is not installed: {}", .0.join(", "))]
    MissingTools(Vec<&'static str>),
    /// This distribution does not have the source as a package.
    #[error("the package {package} cannot be had here")]
    NoPackage {
        /// Which.
        package: &'static str,
        /// What became of the download.
        source: Box<BuildError>,
    },
    /// The source cannot be read.
    #[error("cannot use the kernel source {path}", path = .0.display())]
    Source(PathBuf, #[source] io::Error),
    /// There is no kernel in it.
    #[error("{path} is not a Linux kernel source", path = .0.display())]
    NotASource(PathBuf),
    /// Options that the final configuration lacks.
    #[error("this kernel source lacks options that are required: {}", list(.0))]
    Dropped(Vec<Dropped>),
    /// A program failed.
    #[error("{step} failed")]
    Step {
        /// What it was doing.
        step: &'static str,
        /// The end of its output.
        output: String,
        /// How it failed.
        source: io::Error,
    },
    /// The result cannot be booted.
    #[error("the kernel that was built cannot be booted")]
    Unbootable(#[source] InvalidKernel),
    /// The cache cannot be written.
    #[error("cannot write {path}", path = .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The cache cannot be read.
    #[error(transparent)]
    Store(#[from] KernelError),
}

impl Explain for BuildError {
    fn kind(&self) -> Kind {
        match self {
            Self::MissingTools(_) | Self::NoPackage { .. } => Kind::HostUnready,
            Self::Source(_, error) | Self::Io(_, error) => api::error::io_kind(error),
            Self::NotASource(_) | Self::Dropped(_) => Kind::InvalidInput,
            Self::Step { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::HostUnready,
            Self::Step { .. } | Self::Unbootable(_) => Kind::Internal,
            Self::Store(error) => error.kind(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::MissingTools(packages) => {
                Some(format!("install them; Debian's packages are {}", packages.join(" ")))
            }
            Self::NoPackage { .. } => Some(
                "fetch the source of Linux 6.12 from kernel.org, then: matchlock kernel build --source PATH"
                    .to_owned(),
            ),
            Self::Dropped(_) => Some("use the source of Linux 6.12".to_owned()),
            Self::NotASource(_) => {
                Some("name a folder or tar archive with the source of Linux 6.12".to_owned())
            }
            Self::Step { output, .. } if !output.is_empty() => {
                Some(format!("its last words:\n{}", last_lines(output)))
            }
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}

fn list(dropped: &[Dropped]) -> String {
    let lines = dropped.iter().map(|option| format!("{} (is {})", option.wanted, option.found));
    lines.collect::<Vec<_>>().join(", ")
}

/// As much of a program's output as helps: compilers say what is wrong close to the end.
fn last_lines(output: &str) -> &str {
    const LINES: usize = 20;
    let cut = output.trim_end().rmatch_indices('\n').nth(LINES - 1);
    cut.map_or(output, |(at, _)| &output[at + 1..])
}

/// How often a build that waits for another looks again.
const LOCK_INTERVAL: Duration = Duration::from_millis(200);

/// The same everywhere, so that the same source gives the same bytes.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("LC_ALL", "C"),
    ("LOCALVERSION", ""),
    ("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970"),
    ("KBUILD_BUILD_USER", "matchlock"),
    ("KBUILD_BUILD_HOST", "matchlock"),
    ("KBUILD_BUILD_VERSION", "1"),
];

/// What would change what is built.
const UNWANTED: [&str; 8] =
    ["ARCH", "CROSS_COMPILE", "CC", "KCFLAGS", "KCONFIG_CONFIG", "MAKEFLAGS", "MFLAGS", "O"];

impl Kernels {
    /// Builds the kernel of this version's configuration, or returns it if there is one from the
    /// same source. Takes about five minutes. Dropping the future ends the build and removes what
    /// it has made.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub async fn build(
        &self,
        options: &BuildOptions,
        mut progress: impl FnMut(Progress),
    ) -> Result<Kernel, BuildError> {
        let packages = tools::missing().await;
        if !packages.is_empty() {
            return Err(BuildError::MissingTools(packages));
        }
        let workshop = Workshop::enter(self, &mut progress).await?;
        let source = Source::find(options.source.as_deref(), &workshop.folder, &mut progress).await?;
        let version = source.version().await?;
        let key = Info::key(&version);
        if !options.force
            && let Ok(kernel) = self.named(&key)
        {
            return Ok(kernel);
        }
        progress(Progress::Unpacking);
        let tree = workshop.folder.join("source");
        source.copy(&tree).await?;
        progress(Progress::Configuring);
        configure(&tree).await?;
        compile(&tree, options.jobs, &mut progress).await?;
        let made = workshop.folder.join("kernel");
        finish(&tree, &made, version).await?;
        self.publish(&made, &key)?;
        Ok(self.named(&key)?)
    }

    /// Makes the finished folder visible, all at once.
    fn publish(&self, made: &Path, key: &str) -> Result<(), BuildError> {
        let folder = self.folder().join(key);
        let failed = |error| BuildError::Io(folder.clone(), error);
        if folder.exists() {
            let old = self.temporary().join(format!("removed-{key}"));
            fs::rename(&folder, &old).and_then(|()| fs::remove_dir_all(&old)).map_err(failed)?;
        }
        fs::rename(made, &folder).map_err(failed)
    }
}

/// The folder that a build works in, and the lock that makes it ours.
struct Workshop {
    folder: PathBuf,
    _lock: File,
}

impl Workshop {
    async fn enter(kernels: &Kernels, progress: &mut impl FnMut(Progress)) -> Result<Self, BuildError> {
        for folder in [kernels.folder(), kernels.temporary()] {
            fs::create_dir_all(&folder).map_err(|error| BuildError::Io(folder.clone(), error))?;
        }
        let path = kernels.folder().join("build.lock");
        let failed = |error| BuildError::Io(path.clone(), error);
        let lock = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let mut told = false;
        while let Err(error) = lock.try_lock() {
            match error {
                TryLockError::Error(error) => return Err(failed(error)),
                TryLockError::WouldBlock if !told => {
                    told = true;
                    progress(Progress::Waiting);
                }
                TryLockError::WouldBlock => {}
            }
            tokio::time::sleep(LOCK_INTERVAL).await;
        }
        // Inherited by the build's programs: those of a build that was killed hold on to the lock
        // until they have ended, and nobody works among them.
        rustix::io::fcntl_setfd(&lock, FdFlags::empty()).map_err(|error| failed(error.into()))?;
        let folder = kernels.temporary().join("kernel-build");
        let workshop = Self { folder, _lock: lock };
        workshop.clear();
        fs::create_dir_all(&workshop.folder)
            .map_err(|error| BuildError::Io(workshop.folder.clone(), error))?;
        Ok(workshop)
    }

    /// Compilers that were just killed may still create a file while we remove theirs.
    fn clear(&self) {
        for _ in 0..20 {
            match fs::remove_dir_all(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                _ => return,
            }
        }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        self.clear();
    }
}

fn make(tree: &Path) -> Command {
    let mut make = Command::new("make");
    for name in UNWANTED {
        make.env_remove(name);
    }
    make.envs(ENVIRONMENT).arg(format!("ARCH={ARCH}")).current_dir(tree);
    make
}

/// Makes the configuration, and makes sure that nothing of the fragment was lost.
async fn configure(tree: &Path) -> Result<(), BuildError> {
    if !tree.join("Kconfig").is_file() {
        return Err(BuildError::NotASource(tree.to_owned()));
    }
    run(make(tree).args(["mrproper", "tinyconfig"]), "make tinyconfig", |_| ()).await?;
    let path = tree.join(".config");
    let failed = |error| BuildError::Io(path.clone(), error);
    // Of an option that is there twice, the last counts.
    let tiny = fs::read_to_string(&path).map_err(failed)?;
    fs::write(&path, format!("{tiny}\n{FRAGMENT}")).map_err(failed)?;
    run(make(tree).arg("olddefconfig"), "make olddefconfig", |_| ()).await?;
    let dropped = dropped(FRAGMENT, &fs::read_to_string(&path).map_err(failed)?);
    if dropped.is_empty() { Ok(()) } else { Err(BuildError::Dropped(dropped)) }
}

async fn compile(
    tree: &Path,
    jobs: Option<usize>,
    progress: &mut impl FnMut(Progress),
) -> Result<(), BuildError> {
    let jobs = jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let mut files = 0;
    progress(Progress::Compiling { files });
    let line = |line: &str| {
        if line.trim_start().starts_with("CC ") {
            files += 1;
            progress(Progress::Compiling { files });
        }
    };
    run(make(tree).arg(format!("-j{jobs}")).arg("vmlinux"), "compiling the kernel", line).await
}

/// Puts what is kept into `made`: the kernel without debug symbols, and how it came to be.
async fn finish(tree: &Path, made: &Path, version: String) -> Result<(), BuildError> {
    let failed = |error| BuildError::Io(made.to_owned(), error);
    fs::create_dir_all(made).map_err(failed)?;
    let kernel = made.join("vmlinux");
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(&kernel).arg(tree.join("vmlinux"));
    run(&mut strip, "stripping the kernel", |_| ()).await?;
    check(&kernel).map_err(BuildError::Unbootable)?.sync_all().map_err(failed)?;
    fs::copy(tree.join(".config"), made.join("config")).map_err(failed)?;
    let built = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let info = Info { version, fragment: fragment_digest(), arch: ARCH.to_owned(), built };
    let info = serde_json::to_vec_pretty(&info).expect("strings and numbers");
    fs::write(made.join("kernel.json"), info).map_err(failed)
}
