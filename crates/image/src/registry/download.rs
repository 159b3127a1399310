//! Downloading a blob to a file: continued where it broke off, checked before it is returned.

use std::fs::File;
use std::io::{self, Seek, Write};

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use sha2::{Digest as _, Sha256};

use super::retry::Retries;
use super::{Client, RegistryError, check_digest};
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::layer::Limits;

/// So much progress between two failures makes the count of failures start anew.
const PROGRESS: u64 = 1 << 20;

/// What has been received of a blob.
struct Partial<'a> {
    file: &'a mut File,
    hash: Sha256,
    done: u64,
}

impl Client {
    /// Writes a blob to an empty file, and rewinds it. `heard` is told how many bytes there are.
    ///
    /// A blob that is too large as a layer even before it is decompressed is not asked for: the manifest
    /// alone would decide how much of the disk it fills. On success the file has exactly the bytes of the blob's digest; after an error, anything.
    pub(crate) async fn download(
        &self,
        blob: &Descriptor,
        file: &mut File,
        heard: impl Fn(u64) + Send,
    ) -> Result<(), RegistryError> {
        let limit = Limits::default().expanded_bytes;
        if blob.size > limit {
            return Err(RegistryError::LayerTooLarge { digest: blob.digest, size: blob.size, limit });
        }
        let mut partial = Partial { file, hash: Sha256::new(), done: 0 };
        let mut retries = Retries::further();
        while partial.done < blob.size {
            let before = partial.done;
            if let Err(error) = self.continue_download(blob, &mut partial, &heard).await {
                if partial.done > before + PROGRESS {
                    retries.reset();
                }
                self.before_retry(&mut retries, error).await?;
            }
        }
        let actual = Digest::from(<[u8; 32]>::from(partial.hash.finalize()));
        check_digest("blob", &blob.digest, &actual)?;
        partial.file.rewind().map_err(RegistryError::Disk)
    }

    async fn continue_download(
        &self,
        blob: &Descriptor,
        partial: &mut Partial<'_>,
        heard: &(impl Fn(u64) + Send),
    ) -> Result<(), RegistryError> {
        let path = format!("blobs/{}", blob.digest);
        let response = match self.get(&path, "*/*", partial.done).await {
            // It does not take the range, though there are more bytes.
            Err(RegistryError::Status { status: 416, .. }) if partial.done > 0 => {
                partial.restart()?;
                self.get(&path, "*/*", 0).await?
            }
            other => other?,
        };
        if partial.done > 0 && !continues_at(&response, partial.done) {
            partial.restart()?;
        }
        let mut response = response;
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if chunk.len() as u64 > blob.size - partial.done {
                return Err(RegistryError::Oversize { digest: blob.digest, size: blob.size });
            }
            partial.append(&chunk)?;
            heard(partial.done);
        }
        if partial.done < blob.size {
            let registry = self.reference.registry().to_owned();
            return Err(RegistryError::Truncated { registry, received: partial.done, expected: blob.size });
        }
        Ok(())
    }
}

impl Partial<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.file.write_all(bytes).map_err(RegistryError::Disk)?;
        self.hash.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), RegistryError> {
        let empty = |file: &mut File| -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()
        };
        empty(self.file).map_err(RegistryError::Disk)?;
        self.hash.reset();
        self.done = 0;
        Ok(())
    }
}

/// Whether an answer continues at an offset, rather than starting anew.
fn continues_at(response: &Response, offset: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && start == Some(offset)
}
