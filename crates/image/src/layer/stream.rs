//! The uncompressed bytes of a layer: decompressed, counted, limited, hashed.

use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::LayerError;

/// How many uncompressed bytes are held at once.
const BUFFER: usize = 256 * 1024;

/// How many compressed ones.
const INPUT: usize = 64 * 1024;

/// After how many uncompressed bytes the caller hears of it.
const PROGRESS: u64 = 1 << 20;

/// The zstd window we give memory for, as a power of two: 32 MiB, the largest that the encoders
/// of image builders use.
const ZSTD_WINDOW_LOG: u32 = 25;

/// The first bytes of compressed streams that are no layers', with their names.
const FOREIGN: [(&[u8], &str); 4] =
    [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x04\x22\x4d\x18", "lz4"), (b"\x1f\x9d", "compress")];

/// A layer's uncompressed tar stream.
pub(super) struct Stream<'p, R: Read> {
    decoder: Decoder<R>,
    hasher: Sha256,
    buffer: Vec<u8>,
    /// What of the buffer has not been taken yet.
    ready: std::ops::Range<usize>,
    decoded: u64,
    limit: u64,
    told: u64,
    progress: &'p mut dyn FnMut(u64) -> ControlFlow<()>,
}

enum Decoder<R: Read> {
    Plain(Input<R>),
    Gzip(Box<MultiGzDecoder<BufReader<Input<R>>>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<Input<R>>>),
}

/// The source with the bytes put back that told its compression.
struct Input<R> {
    inner: io::Chain<io::Cursor<Vec<u8>>, R>,
    taken: u64,
    /// The source failed: what the decoder reports then is not the stream's fault.
    failed: bool,
}

impl<'p, R: Read> Stream<'p, R> {
    /// The stream in `source`, of at most `limit` uncompressed bytes.
    pub(super) fn new(
        mut source: R,
        limit: u64,
        progress: &'p mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Self, LayerError> {
        let mut magic = Vec::new();
        source.by_ref().take(6).read_to_end(&mut magic).map_err(LayerError::Read)?;
        if let Some((_, name)) = FOREIGN.iter().find(|(start, _)| magic.starts_with(start)) {
            return Err(LayerError::Compression(name));
        }
        let gzip = magic.starts_with(b"\x1f\x8b");
        let zstd = magic.starts_with(b"\x28\xb5\x2f\xfd")
            // A skippable frame, with which seekable zstd streams may begin.
            || magic.get(1..4) == Some(b"\x2a\x4d\x18") && magic[0] & 0xf0 == 0x50;
        let input = Input { inner: io::Cursor::new(magic).chain(source), taken: 0, failed: false };
        let decoder = if gzip {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(INPUT, input))))
        } else if zstd {
            let fault = |source| LayerError::Decompress { compression: "zstd", source };
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(INPUT, input))
                    .map_err(fault)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(fault)?;
            Decoder::Zstd(decoder)
        } else {
            Decoder::Plain(input)
        };
        Ok(Self {
            decoder,
            hasher: Sha256::new(),
            buffer: vec![0; BUFFER],
            ready: 0..0,
            decoded: 0,
            limit,
            told: 0,
            progress,
        })
    }

    /// How many bytes have been taken.
    pub(super) fn position(&self) -> u64 {
        self.decoded - self.ready.len() as u64
    }

    /// Takes at most `most` bytes: at least one, if not none were asked for.
    pub(super) fn take(&mut self, most: u64) -> Result<&[u8], LayerError> {
        if self.ready.is_empty() && most > 0 && !self.fill()? {
            return Err(LayerError::Truncated(self.decoded));
        }
        let count = usize::try_from(most).map_or(self.ready.len(), |most| most.min(self.ready.len()));
        let start = self.ready.start;
        self.ready.start += count;
        Ok(&self.buffer[start..start + count])
    }

    /// Takes as many bytes as fill `target`.
    pub(super) fn take_exact(&mut self, target: &mut [u8]) -> Result<(), LayerError> {
        let mut filled = 0;
        while filled < target.len() {
            let bytes = self.take((target.len() - filled) as u64)?;
            target[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        }
        Ok(())
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, mut count: u64) -> Result<(), LayerError> {
        while count > 0 {
            count -= self.take(count)?.len() as u64;
        }
        Ok(())
    }

    /// Whether the stream has ended.
    pub(super) fn at_end(&mut self) -> Result<bool, LayerError> {
        Ok(self.ready.is_empty() && !self.fill()?)
    }

    /// Reads to the stream's end, whatever is there: the digest is of all of it. Its SHA-256 and
    /// length.
    pub(super) fn finish(mut self) -> Result<([u8; 32], u64), LayerError> {
        while self.fill()? {}
        Ok((self.hasher.finalize().into(), self.decoded))
    }

    /// Decodes the next bytes, throwing away what was not taken; whether there were any.
    fn fill(&mut self) -> Result<bool, LayerError> {
        let count = loop {
            match self.decoder.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| self.decoder.blame(error))?,
            }
        };
        self.ready = 0..count;
        self.hasher.update(&self.buffer[..count]);
        self.decoded += count as u64;
        if self.decoded > self.limit {
            return Err(LayerError::TooLarge(self.limit));
        }
        if self.decoded - self.told >= PROGRESS || count == 0 {
            self.told = self.decoded;
            if (self.progress)(self.decoder.input().taken).is_break() {
                return Err(LayerError::Cancelled);
            }
        }
        Ok(count > 0)
    }
}

impl<R: Read> Decoder<R> {
    fn input(&self) -> &Input<R> {
        match self {
            Self::Plain(input) => input,
            Self::Gzip(decoder) => decoder.get_ref().get_ref(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }

    /// Whose fault an error is.
    fn blame(&self, source: io::Error) -> LayerError {
        let compression = match self {
            _ if self.input().failed => return LayerError::Read(source),
            Self::Plain(_) => return LayerError::Read(source),
            Self::Gzip(_) => "gzip",
            Self::Zstd(_) => "zstd",
        };
        LayerError::Decompress { compression, source }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buffer);
        match &result {
            Ok(count) => self.taken += *count as u64,
            Err(error) => self.failed = error.kind() != io::ErrorKind::Interrupted,
        }
        result
    }
}
