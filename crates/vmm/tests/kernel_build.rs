//! Building kernels, with a source tree that takes a second instead of minutes: its Makefile does
//! what Linux's does, as far as a build can tell.
#![expect(clippy::unwrap_used, reason = "in a test, a failure is the result")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::Explain;
use tempfile::TempDir;
use vmm::kernel::{BuildError, BuildOptions, Kernel, Kernels, Progress, check};

/// The parts that a test replaces to make a build go wrong.
struct Makefile {
    olddefconfig: &'static str,
    vmlinux: &'static str,
}

const GOOD: Makefile = Makefile { olddefconfig: "true", vmlinux: "$(COMPILE)" };

/// A program with the note of a PVH kernel.
const PVH: &str = ".section .note.Xen,\"a\",@note\n.long 4, 8, 18\n.asciz \"Xen\"\n.quad 0x1000000\n\
                   .text\n.globl _start\n_start: hlt\n";

struct Site {
    folder: TempDir,
}

impl Site {
    fn new(makefile: &Makefile) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("linux");
        fs::create_dir(&source).unwrap();
        let log = folder.path().join("compiled");
        let text = format!(
            "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 7\nEXTRAVERSION =\n\
             COMPILE = echo '  CC      kernel.o'; gcc -nostdlib -static -no-pie -g -o vmlinux pvh.S; \
             echo x >> {}\n\
             .PHONY: vmlinux\nmrproper:\n\ttrue\n\
             tinyconfig:\n\techo CONFIG_TINY=y > .config\n\
             olddefconfig:\n\t{}\nvmlinux:\n\t{}\n",
            log.display(),
            makefile.olddefconfig,
            makefile.vmlinux
        );
        fs::write(source.join("Makefile"), text).unwrap();
        fs::write(source.join("Kconfig"), "").unwrap();
        fs::write(source.join("pvh.S"), PVH).unwrap();
        Self { folder }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn options(&self) -> BuildOptions {
        BuildOptions { source: Some(self.folder.path().join("linux")), jobs: Some(2), force: false }
    }

    async fn build(&self) -> Result<Kernel, BuildError> {
        Kernels::new(self.cache()).build(&self.options(), |_| ()).await
    }

    fn compilations(&self) -> usize {
        fs::read_to_string(self.folder.path().join("compiled")).map_or(0, |log| log.lines().count())
    }

    /// Neither half a kernel nor a temporary file.
    fn assert_clean(&self, kernels: usize) {
        assert_eq!(Kernels::new(self.cache()).list().unwrap().len(), kernels);
        let folders = fs::read_dir(self.cache().join("kernels")).unwrap();
        assert_eq!(folders.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(), kernels);
        let left: Vec<_> = fs::read_dir(self.cache().join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn a_kernel_is_built_once_and_found_again() {
    let site = Site::new(&GOOD);
    let seen = Mutex::new(Vec::new());
    let kernels = Kernels::new(site.cache());
    let kernel = kernels.build(&site.options(), |step| seen.lock().unwrap().push(step)).await.unwrap();
    assert_eq!(kernel.info.version, "6.12.7");
    assert!(kernel.is_current());
    check(&kernel.path).unwrap();
    assert_eq!(kernels.default_kernel().unwrap(), kernel);
    assert!(fs::read_to_string(kernel.path.with_file_name("config")).unwrap().contains("CONFIG_EROFS_FS=y"));
    assert_eq!(seen.into_inner().unwrap().last(), Some(&Progress::Compiling { files: 1 }));
    assert_eq!(site.build().await.unwrap(), kernel);
    assert_eq!(site.compilations(), 1, "the second time there was nothing to do");
    site.assert_clean(1);
    assert!(!site.folder.path().join("linux/.config").exists(), "the user's source is not written to");
    let again = BuildOptions { force: true, ..site.options() };
    kernels.build(&again, |_| ()).await.unwrap();
    assert_eq!(site.compilations(), 2);
    site.assert_clean(1);
}

#[tokio::test]
async fn an_archive_is_a_source_too() {
    let site = Site::new(&GOOD);
    let archive = site.folder.path().join("linux.tar.xz");
    let mut tar = std::process::Command::new("tar");
    tar.arg("-C").arg(site.folder.path()).arg("-cJf").arg(&archive).arg("linux");
    assert!(tar.status().unwrap().success());
    let options = BuildOptions { source: Some(archive), ..site.options() };
    let kernel = Kernels::new(site.cache()).build(&options, |_| ()).await.unwrap();
    assert_eq!(kernel.info.version, "6.12.7");
    site.assert_clean(1);
}

#[tokio::test]
async fn options_that_the_source_drops_are_named() {
    let drop = "sed -i -e /CONFIG_EROFS_FS=/d -e s/CONFIG_MODULES=n/CONFIG_MODULES=y/ .config";
    let site = Site::new(&Makefile { olddefconfig: drop, ..GOOD });
    let error = site.build().await.unwrap_err().to_string();
    assert!(error.contains("CONFIG_EROFS_FS=y (is n)"), "{error}");
    assert!(error.contains("CONFIG_MODULES=n (is y)"), "{error}");
    assert_eq!(site.compilations(), 0);
    site.assert_clean(0);
}

#[tokio::test]
async fn a_failing_compiler_is_quoted() {
    let site = Site::new(&Makefile { vmlinux: "echo 'kernel.c:1: error: nonsense' >&2; exit 1", ..GOOD });
    let error = site.build().await.unwrap_err();
    assert!(matches!(&error, BuildError::Step { step: "compiling the kernel", .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("kernel.c:1: error: nonsense"));
    site.assert_clean(0);
}

#[tokio::test]
async fn what_cannot_be_booted_is_not_kept() {
    let site = Site::new(&Makefile { vmlinux: "cp /bin/true vmlinux", ..GOOD });
    assert!(matches!(site.build().await, Err(BuildError::Unbootable(_))));
    site.assert_clean(0);
}

#[tokio::test]
async fn what_is_no_source_is_refused() {
    let site = Site::new(&GOOD);
    let with = async |source: &Path| {
        let options = BuildOptions { source: Some(source.to_owned()), ..site.options() };
        Kernels::new(site.cache()).build(&options, |_| ()).await.unwrap_err()
    };
    assert!(matches!(with(Path::new("/nowhere")).await, BuildError::Source(..)));
    assert!(matches!(with(Path::new("/etc")).await, BuildError::Source(..)));
    assert!(matches!(with(Path::new("/bin/true")).await, BuildError::Step { .. }));
    fs::write(site.folder.path().join("linux/Makefile"), "all:\n\ttrue\n").unwrap();
    assert!(matches!(site.build().await, Err(BuildError::NotASource(_))));
    site.assert_clean(0);
}

#[tokio::test]
async fn a_cancelled_build_leaves_neither_files_nor_processes() {
    let site = Site::new(&Makefile { vmlinux: "echo '  CC      x.o'; sleep 4321 & sleep 4321", ..GOOD });
    let started = Arc::new(tokio::sync::Notify::new());
    let tell = Arc::clone(&started);
    let kernels = Kernels::new(site.cache());
    let options = site.options();
    let build = tokio::spawn(async move {
        kernels
            .build(&options, |step| {
                if step == (Progress::Compiling { files: 1 }) {
                    tell.notify_one();
                }
            })
            .await
    });
    started.notified().await;
    let compilers = || {
        let folder = site.cache().canonicalize().unwrap();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let working = processes.filter_map(|process| fs::read_link(process.path().join("cwd")).ok());
        working.filter(|cwd| cwd.starts_with(&folder)).count()
    };
    assert!(compilers() > 0);
    build.abort();
    assert!(build.await.unwrap_err().is_cancelled());
    let start = Instant::now();
    while compilers() > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "compilers outlived the build");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    site.assert_clean(0);
}

#[tokio::test]
async fn two_builds_at_once_compile_once() {
    let site = Site::new(&Makefile { vmlinux: "sleep 1; $(COMPILE)", ..GOOD });
    let waited = Mutex::new(0);
    let kernels = Kernels::new(site.cache());
    let options = site.options();
    let count = |step| *waited.lock().unwrap() += u32::from(step == Progress::Waiting);
    let (first, second) = tokio::join!(kernels.build(&options, count), kernels.build(&options, count));
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!((*waited.lock().unwrap(), site.compilations()), (1, 1));
    site.assert_clean(1);
}
