//! The certificate that commands are to trust, in the places where programs of the image look for those.
//!
//! Before any command runs, in the sandbox's root: the image's bundles get one certificate more, its
//! directories a file, Java a key store. The image's own tools (`update-ca-certificates`,
//! `update-ca-trust`) find it among their anchors, so it stays when they make the bundles again. A
//! sandbox that is started again has another certificate, which takes the place of the first.
//!
//! An image whose files are not what they should be is not trusted with a boot: what fails is told on
//! the console, and the rest is done.

mod keystore;
mod pem;
mod sha1;
mod subject;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use proto::boot::{BootConfig, CA_BUNDLE, CA_CERTIFICATE};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::beneath;
use super::root::Overlay;

/// Where systems have their bundles. The first that is there is the one that [`CA_BUNDLE`] leads to.
const BUNDLES: &[&str] = &[
    DEFAULT_BUNDLE,
    "/etc/pki/tls/certs/ca-bundle.crt", // Fedora and relatives
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // what theirs lead to, if they do
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/ca-bundle.pem", // SUSE
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem", // Arch
    "/etc/ssl/cert.pem",                                // Alpine, and what BSD's libraries read
];

/// Debian's and Alpine's bundle, and that of an image that has none: most programs look there.
const DEFAULT_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where systems have the certificates that their administrator adds, and the file's name there. Only
/// the first is made if it is missing: a package that comes later will read it.
const ANCHORS: &[(&str, &str)] = &[
    ("/usr/local/share/ca-certificates", "matchlock.crt"), // Debian, Alpine
    ("/etc/pki/ca-trust/source/anchors", "matchlock.pem"), // Fedora
    ("/etc/pki/trust/anchors", "matchlock.pem"),           // SUSE
    ("/etc/ca-certificates/trust-source/anchors", "matchlock.crt"), // Arch
];

/// Directories where OpenSSL looks certificates up by the hash of their subject.
const DIRECTORIES: &[&str] =
    &["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted/pem/directory-hash"];

/// The certificate's name in those.
const NAME: &str = "matchlock.pem";

/// How many certificates with one hash OpenSSL is offered: an image that has more of them is up to
/// something.
const MAX_SAME_HASH: u32 = 8;

/// Java's key stores of a whole system.
const KEY_STORES: &[&str] = &[
    "/etc/ssl/certs/java/cacerts",
    "/etc/pki/java/cacerts",
    "/etc/pki/ca-trust/extracted/java/cacerts",
    "/opt/java/openjdk/lib/security/cacerts",
    "/opt/java/openjdk/jre/lib/security/cacerts",
];

/// Where each JDK has a directory of its own, and how its name begins.
const JDKS: &[(&str, &str)] =
    &[("/usr/lib/jvm", ""), ("/usr/java", ""), ("/usr/local", "openjdk"), ("/opt", "")];

/// Most entries that are looked at in each of these: it keeps an image from holding up the boot.
const MAX_JDKS: usize = 64;

/// A JDK's key stores, in its directory.
const JDK_KEY_STORES: &[&str] = &["lib/security/cacerts", "jre/lib/security/cacerts"];

/// Largest file of the image's that is read, bytes: a bundle of all authorities is 0.25 MB.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Has commands trust the certificate of the configuration, if it has one.
pub(super) fn write(root: &Overlay, config: &BootConfig) {
    let Some(certificate) = &config.certificate else { return };
    let root = root.root();
    let trust = Trust { root: root.as_fd(), certificate, since_ms: config.clock_unix_ns / 1_000_000 };
    trust.write();
}

struct Trust<'a> {
    root: BorrowedFd<'a>,
    /// PEM.
    certificate: &'a str,
    /// When it is entered into key stores, milliseconds after the Unix epoch.
    since_ms: u64,
}

/// Which file a path leads to: device and number.
type Identity = (u64, u64);

impl Trust<'_> {
    fn write(&self) {
        let previous = self.read(CA_CERTIFICATE).ok().map(|(text, _)| text);
        tell(CA_CERTIFICATE, self.put(CA_CERTIFICATE));
        for (directory, name) in ANCHORS {
            if *directory == ANCHORS[0].0 || self.is_directory(directory) {
                tell(directory, self.put(&format!("{directory}/{name}")));
            }
        }
        let der = pem::certificates(self.certificate.as_bytes());
        let hash = der.first().and_then(|der| subject::hash(der));
        for directory in DIRECTORIES {
            if let (Some(hash), true) = (&hash, *directory == DIRECTORIES[0] || self.is_directory(directory))
            {
                tell(directory, self.link_by_hash(directory, hash));
            }
        }
        let bundle = self.bundles(previous.as_deref());
        self.key_stores(&bundle);
    }

    /// Adds the certificate to all bundles; gives the one that [`CA_BUNDLE`] leads to.
    fn bundles(&self, previous: Option<&[u8]>) -> Vec<u8> {
        let mut first: Option<(&str, Vec<u8>)> = None;
        let mut done: Vec<Identity> = Vec::new();
        for path in BUNDLES {
            let merged = self.read(path).and_then(|(old, identity)| {
                if done.contains(&identity) {
                    return Ok(None);
                }
                let merged = pem::with(&old, self.certificate, previous);
                done.push(self.change(path, &old, &merged)?);
                Ok(Some(merged))
            });
            match merged {
                Ok(Some(merged)) if first.is_none() => first = Some((path, merged)),
                Ok(_) => {}
                Err(error) => tell(path, Err(error)),
            }
        }
        let (path, bundle) = first.unwrap_or_else(|| {
            let bundle = pem::with(b"", self.certificate, None);
            tell(DEFAULT_BUNDLE, self.replace(DEFAULT_BUNDLE, &bundle));
            (DEFAULT_BUNDLE, bundle)
        });
        tell(CA_BUNDLE, self.link(CA_BUNDLE, path));
        bundle
    }

    /// Makes all of Java's key stores trust what the bundle trusts.
    fn key_stores(&self, bundle: &[u8]) {
        let mut paths: Vec<String> = KEY_STORES.iter().map(|path| (*path).to_owned()).collect();
        for (parent, prefix) in JDKS {
            let names = beneath::names(self.root, parent, MAX_JDKS).unwrap_or_default();
            let each = |name| JDK_KEY_STORES.iter().map(move |path| format!("{parent}/{name}/{path}"));
            paths.extend(names.into_iter().filter(|name| name.starts_with(prefix)).flat_map(each));
        }
        let mut store = None;
        let mut done: Vec<Identity> = Vec::new();
        for path in paths {
            let written = self.open(&path, OFlags::RDONLY).and_then(|(_, identity)| {
                if done.contains(&identity) {
                    return Ok(());
                }
                let certificates = || keystore::trusting(&pem::certificates(bundle), self.since_ms);
                done.push(self.change(&path, &[], store.get_or_insert_with(certificates))?);
                Ok(())
            });
            tell(&path, written);
        }
    }

    /// A regular file of the image's, links followed as commands will follow them.
    fn open(&self, path: &str, mode: OFlags) -> io::Result<(File, Identity)> {
        let file = beneath::existing_file(self.root, path, mode)?;
        let status = file.metadata()?;
        if !status.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        if status.len() > MAX_FILE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok((file, (status.dev(), status.ino())))
    }

    fn read(&self, path: &str) -> io::Result<(Vec<u8>, Identity)> {
        let (file, identity) = self.open(path, OFlags::RDONLY)?;
        // At once, and one byte more to see that it ends there.
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let mut text = Vec::with_capacity(length + 1);
        file.take(MAX_FILE).read_to_end(&mut text)?;
        Ok((text, identity))
    }

    /// Makes a file of `new` from one of `old`, from the first byte that differs: a bundle that only grows
    /// is whole, whenever that is interrupted. It keeps its owner and mode. Gives what it is afterwards:
    /// the first change of an image's file makes it another.
    fn change(&self, path: &str, old: &[u8], new: &[u8]) -> io::Result<Identity> {
        let (file, _) = self.open(path, OFlags::RDWR)?;
        let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
        file.write_all_at(&new[same..], same as u64)?;
        file.set_len(new.len() as u64)?;
        let status = file.metadata()?;
        Ok((status.dev(), status.ino()))
    }

    /// Writes the certificate alone.
    fn put(&self, path: &str) -> io::Result<()> {
        self.replace(path, format!("{}\n", self.certificate.trim_end()).as_bytes())
    }

    /// Makes a file in place of whatever is there, and its directory if there is none.
    fn replace(&self, path: &str, contents: &[u8]) -> io::Result<()> {
        let (directory, name) = parts(path);
        beneath::replace_file(beneath::deep_directory(self.root, directory, 0o755)?, name, contents)
    }

    /// Makes a symbolic link in place of whatever is there.
    fn link(&self, path: &str, target: &str) -> io::Result<()> {
        let (directory, name) = parts(path);
        beneath::replace_link(beneath::deep_directory(self.root, directory, 0o755)?, name, target)
    }

    fn link_by_hash(&self, directory: &str, hash: &str) -> io::Result<()> {
        self.put(&format!("{directory}/{NAME}"))?;
        let directory = beneath::deep_directory(self.root, &directory[1..], 0o755)?;
        for number in 0..MAX_SAME_HASH {
            match rustix::fs::symlinkat(NAME, &directory, format!("{hash}.{number}")) {
                // Ours already, or another certificate's.
                Err(Errno::EXIST) => {
                    let taken = rustix::fs::readlinkat(&directory, format!("{hash}.{number}"), Vec::new());
                    if taken.is_ok_and(|target| target.as_bytes() == NAME.as_bytes()) {
                        return Ok(());
                    }
                }
                made => return Ok(made?),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn is_directory(&self, path: &str) -> bool {
        beneath::existing_file(self.root, path, OFlags::RDONLY | OFlags::DIRECTORY).is_ok()
    }
}

/// The directory, as a path below the root, and the name in it.
fn parts(path: &str) -> (&str, &str) {
    path[1..].rsplit_once('/').expect("nothing of ours is directly below the root")
}

/// Tells on the console what could not be done. What is not there is nothing to tell.
fn tell(path: &str, outcome: io::Result<()>) {
    match outcome {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            eprintln!("matchlock: no trust for the sandbox's certificate in {path}: {error}");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
