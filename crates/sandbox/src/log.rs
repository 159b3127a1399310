//! A sandbox's logs, each in one file of bounded size with one predecessor. The guest may give cause to
//! write for ever; the newest is what is kept.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::identity::Identity;

/// Size at which the file is put aside, bytes; twice this is the most that a log takes on disk.
pub const LIMIT: u64 = 4 * 1024 * 1024;

/// Which log of a sandbox: the names of its file and of the one before it, in the sandbox's directory.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    current: &'static str,
    aside: &'static str,
}

/// What its console and its commands write.
pub const OUTPUT: Name = Name { current: "log", aside: "log.1" };

/// What it did on the network; see [`crate::network::log`].
pub const NETWORK: Name = Name { current: "network.log", aside: "network.log.1" };

/// A log of a sandbox that runs here. Clones write to the same one.
///
/// A log that cannot be written (disk full) is given up: a command must not be held up by it.
#[derive(Debug, Clone)]
pub struct Log {
    name: Name,
    directory: Arc<Path>,
    writer: Arc<Mutex<Option<Writer>>>,
    /// How many bytes were ever written; followers wait for it to change.
    written: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    length: u64,
}

impl Log {
    /// Opens a log in a sandbox's directory; what is in it stays.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(directory: &Path, name: Name) -> io::Result<Self> {
        let writer = Writer::open(directory, name)?;
        Ok(Self {
            name,
            directory: directory.into(),
            writer: Arc::new(Mutex::new(Some(writer))),
            written: Arc::new(watch::Sender::new(0)),
        })
    }

    /// Adds to it.
    pub fn append(&self, bytes: &[u8]) {
        let mut writer = self.writer();
        let Some(open) = writer.as_mut() else { return };
        if let Err(error) = open.append(&self.directory, self.name, bytes) {
            tracing::warn!(%error, directory = %self.directory.display(), "the log is given up");
            *writer = None;
        }
        drop(writer);
        self.written.send_modify(|written| *written += bytes.len() as u64);
    }

    /// What is in it, and then what is added, until the log is dropped by all who write it.
    ///
    /// # Errors
    /// When the files cannot be opened.
    pub fn follow(&self) -> io::Result<Follower> {
        // Nothing is put aside while these are opened.
        let _writer = self.writer();
        let files = files(&self.directory, self.name)?;
        let written = self.written.subscribe();
        Ok(Follower { name: self.name, directory: Arc::clone(&self.directory), files, written })
    }

    fn writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn open(directory: &Path, name: Name) -> io::Result<Self> {
        let path = directory.join(name.current);
        let file = File::options().append(true).create(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    fn append(&mut self, directory: &Path, name: Name, bytes: &[u8]) -> io::Result<()> {
        if self.length >= LIMIT {
            fs::rename(directory.join(name.current), directory.join(name.aside))?;
            *self = Self::open(directory, name)?;
        }
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }
}

/// Reads a log in a sandbox's directory, whether the sandbox runs or not.
///
/// # Errors
/// When the files cannot be read; that they are not there is no error.
pub fn read(directory: &Path, name: Name) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    for mut file in files(directory, name)? {
        file.read_to_end(&mut content)?;
    }
    Ok(content)
}

/// The files of a log, oldest first.
fn files(directory: &Path, name: Name) -> io::Result<Vec<File>> {
    let mut files: Vec<File> = Vec::new();
    for name in [name.aside, name.current] {
        match File::open(directory.join(name)) {
            // Put aside between the two: then there is nothing newer yet.
            Ok(file) if files.first().is_some_and(|first| Identity::of(first) == Identity::of(&file)) => {}
            Ok(file) => files.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// Somebody who reads a log while it is written.
#[derive(Debug)]
pub struct Follower {
    name: Name,
    directory: Arc<Path>,
    /// The last is the one that is written, or was when it was opened.
    files: Vec<File>,
    written: watch::Receiver<u64>,
}

impl Follower {
    /// The next bytes, at most as many as `buffer` takes; `None` when nothing will be written any
    /// more. Who reads too slowly misses what was put aside twice.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub async fn next(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            self.written.mark_unchanged();
            if let Some(read) = self.read(buffer)? {
                return Ok(Some(read));
            }
            if self.written.changed().await.is_err() {
                // What was written between the look and the end.
                return self.read(buffer);
            }
        }
    }

    /// What is there now.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            if let Some(file) = self.files.first_mut() {
                match file.read(buffer)? {
                    0 if self.files.len() > 1 => drop(self.files.remove(0)),
                    0 => match self.newer()? {
                        // Read once more: it may have grown before it was put aside.
                        Some(newer) => self.files.push(newer),
                        None => return Ok(None),
                    },
                    read => return Ok(Some(read)),
                }
            } else {
                self.files = files(&self.directory, self.name)?;
                if self.files.is_empty() {
                    return Ok(None);
                }
            }
        }
    }

    /// The file that is written now, if it is another one than ours.
    fn newer(&self) -> io::Result<Option<File>> {
        match File::open(self.directory.join(self.name.current)) {
            Ok(file) => {
                let ours = self.files.last();
                Ok(ours.is_none_or(|ours| Identity::of(ours) != Identity::of(&file)).then_some(file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn an_endless_log_is_bounded_and_keeps_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), OUTPUT).unwrap();
        let noise = vec![b'x'; 64 * 1024];
        for _ in 0..(3 * LIMIT / noise.len() as u64) {
            log.append(&noise);
        }
        log.append(b"the end");
        let content = read(folder.path(), OUTPUT).unwrap();
        assert!(content.ends_with(b"xthe end"));
        assert!(content.len() as u64 <= 2 * LIMIT + noise.len() as u64);
        assert_eq!(folder.path().read_dir().unwrap().count(), 2);
        let mode = folder.path().join(OUTPUT.current).metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_an_earlier_run_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), OUTPUT).unwrap(), b"");
        Log::open(folder.path(), OUTPUT).unwrap().append(b"one ");
        Log::open(folder.path(), OUTPUT).unwrap().append(b"two");
        assert_eq!(read(folder.path(), OUTPUT).unwrap(), b"one two");
    }

    #[tokio::test]
    async fn a_follower_sees_every_byte_in_order_over_files_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), OUTPUT).unwrap();
        log.append(b"before ");
        let mut follower = log.follow().unwrap();
        let writer = tokio::task::spawn_blocking(move || {
            for number in 0..(LIMIT / 4096 + LIMIT / 8192) {
                log.append(format!("{number:4095}\n").as_bytes());
                if number % 64 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        });
        let (mut content, mut buffer) = (Vec::new(), vec![0; 10_000]);
        while let Some(read) = follower.next(&mut buffer).await.unwrap() {
            content.extend_from_slice(&buffer[..read]);
        }
        writer.await.unwrap();
        let text = String::from_utf8(content).unwrap();
        let (first, rest) = text.split_once(' ').unwrap();
        assert_eq!(first, "before");
        let numbers: Vec<u64> = rest.lines().map(|line| line.trim().parse().unwrap()).collect();
        assert_eq!(numbers, (0..(LIMIT / 4096 + LIMIT / 8192)).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_log_on_a_full_disk_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), OUTPUT).unwrap();
        log.writer().as_mut().unwrap().file = File::options().write(true).open("/dev/full").unwrap();
        log.append(b"lost");
        log.append(b"lost, too");
        let mut follower = log.follow().unwrap();
        drop(log);
        assert_eq!(follower.next(&mut [0; 16]).await.unwrap(), None);
    }
}
