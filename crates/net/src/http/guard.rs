//! The framing of HTTP/1 as a guest may use it: one reading of where each request begins and ends, and a
//! refusal of everything that another parser could read differently (RFC 9112, 11.2, request smuggling).
//! Pure; `guarded` puts it in front of a connection. What passes is parsed again and re-serialised behind it.

mod head;

use thiserror::Error;

use head::Framing;

/// The longest head, bytes. Stops a guest from making us buffer for ever; servers take 8 to 64 KiB.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// The most fields in a head or in trailers; as many as the parser behind takes.
pub(crate) const MAX_FIELDS: usize = 100;

/// The longest line in front of a chunk, bytes, with its extensions, which nobody uses.
const MAX_CHUNK_LINE: usize = 1024;

/// The longest trailers, bytes.
const MAX_TRAILERS: usize = 16 * 1024;

/// Digits of a chunk's size: stops sizes that overflow.
const MAX_SIZE_DIGITS: usize = 15;

/// How a guest breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// Over [`MAX_HEAD`].
    #[error("a head is longer than {MAX_HEAD} bytes")]
    HeadTooLong,
    /// Over [`MAX_FIELDS`].
    #[error("there are more than {MAX_FIELDS} fields")]
    TooManyFields,
    /// A CR or LF alone.
    #[error("a line does not end with CRLF")]
    LineEnd,
    /// Not method, target and version with one space between them.
    #[error("the request line is malformed")]
    RequestLine,
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
    /// A line that continues the one before it.
    #[error("a field is folded")]
    Fold,
    /// Not a token in front of the colon.
    #[error("the name of a field is malformed")]
    FieldName,
    /// A control character.
    #[error("the value of a field has a control character")]
    FieldValue,
    /// More than one, or none in HTTP/1.1.
    #[error("there is not exactly one Host")]
    Host,
    /// More than one, or not a number.
    #[error("Content-Length is not one number")]
    ContentLength,
    /// Not once `chunked`, in HTTP/1.1, without Content-Length.
    #[error("Transfer-Encoding is not chunked alone")]
    TransferEncoding,
    /// A chunk's size is malformed, or the chunk does not end where it says.
    #[error("a chunk is malformed")]
    Chunk,
    /// Trailers too long, or with fields that belong into the head.
    #[error("the trailers are malformed")]
    Trailers,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub struct Guard {
    state: State,
    /// What is not whole yet: a head, a line in front of a chunk, a line of the trailers.
    held: Vec<u8>,
    /// The last request is of HTTP/1.0, where the end of the connection can be the end of an answer.
    is_old: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the end of a head, how much of which is known to have none.
    Head { searched: usize },
    /// In a body with so many bytes left.
    Body(u64),
    /// In the line in front of a chunk.
    ChunkLine,
    /// In a chunk with so many bytes left.
    ChunkData(u64),
    /// Behind a chunk's data.
    ChunkEnd,
    /// In the trailers, of which there were so many bytes and fields.
    Trailers { bytes: usize, fields: usize },
    /// No HTTP any more: whatever comes may pass.
    Raw,
    /// Something was wrong: nothing passes any more.
    Refused { violation: Violation, in_head: bool },
}

impl Default for Guard {
    fn default() -> Self {
        Self { state: State::Head { searched: 0 }, held: Vec::new(), is_old: false }
    }
}

impl Guard {
    /// Takes bytes of the guest's and adds those that may pass to `out`. Nothing of a head passes before
    /// all of it is there and in order.
    ///
    /// # Errors
    /// The guest breaks the rules. What passed before is in order; the connection must end.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
        while !bytes.is_empty() {
            match self.step(bytes, out) {
                Ok(taken) => bytes = &bytes[taken..],
                Err(violation) => {
                    let in_head = matches!(self.state, State::Head { .. });
                    self.state = State::Refused { violation, in_head };
                    self.held = Vec::new();
                    return Err(violation);
                }
            }
        }
        Ok(())
    }

    /// How many of the next bytes pass whatever they are; [`Guard::passed`] counts them.
    #[must_use]
    pub fn free(&self) -> u64 {
        match self.state {
            State::Body(left) | State::ChunkData(left) => left,
            State::Raw => u64::MAX,
            _ => 0,
        }
    }

    /// Counts bytes that passed without being fed; at most [`Guard::free`].
    pub fn passed(&mut self, count: u64) {
        self.state = match self.state {
            State::Body(left) => after_body(left.saturating_sub(count)),
            State::ChunkData(left) => after_data(left.saturating_sub(count)),
            state => state,
        };
    }

    /// Lets everything pass from now on: the connection is no longer one of HTTP. Gives back what was
    /// held.
    pub fn release(&mut self) -> Vec<u8> {
        if matches!(self.state, State::Refused { .. }) {
            return Vec::new();
        }
        self.state = State::Raw;
        std::mem::take(&mut self.held)
    }

    /// Whether what was wrong was in a head: all requests before it are whole.
    #[must_use]
    pub fn refused_head(&self) -> bool {
        matches!(self.state, State::Refused { in_head: true, .. })
    }

    /// Whether an answer that says what was wrong can follow the others: the requests before are whole,
    /// and the last is not of HTTP/1.0, where the end of the connection can be the end of an answer.
    #[must_use]
    pub fn can_answer(&self) -> bool {
        self.refused_head() && !self.is_old
    }

    /// Takes some of `bytes`, at least one, and says how many.
    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Violation> {
        match self.state {
            State::Head { searched } => self.head(searched, bytes, out),
            State::Body(left) | State::ChunkData(left) => {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                out.extend_from_slice(&bytes[..count]);
                self.passed(count as u64);
                Ok(count)
            }
            State::Raw => {
                out.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            State::ChunkLine => {
                let (taken, line) = self.line(bytes, MAX_CHUNK_LINE, Violation::Chunk)?;
                if let Some(line) = line {
                    let size = chunk_size(&line)?;
                    self.state = match size {
                        0 => State::Trailers { bytes: 0, fields: 0 },
                        size => State::ChunkData(size),
                    };
                    pass_line(&line, out);
                }
                Ok(taken)
            }
            State::ChunkEnd => {
                let (taken, line) = self.line(bytes, 0, Violation::Chunk)?;
                if let Some(line) = line {
                    self.state = State::ChunkLine;
                    pass_line(&line, out);
                }
                Ok(taken)
            }
            State::Trailers { bytes: before, fields } => {
                let (taken, line) = self.line(bytes, MAX_TRAILERS - before, Violation::Trailers)?;
                if let Some(line) = line {
                    self.state = next_trailer(&line, before, fields)?;
                    pass_line(&line, out);
                }
                Ok(taken)
            }
            State::Refused { violation, .. } => Err(violation),
        }
    }

    fn head(&mut self, searched: usize, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, Violation> {
        let before = self.held.len();
        let room = MAX_HEAD - before;
        self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
        // An end that began in the last piece is found, too.
        let from = searched.saturating_sub(3);
        let Some(end) = self.held[from..].windows(4).position(|four| four == b"\r\n\r\n") else {
            if bytes.len() >= room {
                return Err(Violation::HeadTooLong);
            }
            // What can never become a head need not wait for its end.
            head::check_start(&self.held, before)?;
            self.state = State::Head { searched: self.held.len() };
            return Ok(bytes.len());
        };
        let length = from + end + 4;
        self.held.truncate(length);
        let head = head::check(&self.held)?;
        self.is_old = head.is_old;
        self.state = match head.framing {
            Framing::Length(length) => after_body(length),
            Framing::Chunked => State::ChunkLine,
        };
        out.append(&mut self.held);
        Ok(length - before)
    }

    /// Takes up to the end of a line: how many bytes that are, and the line without its end if it is whole.
    fn line(
        &mut self,
        bytes: &[u8],
        limit: usize,
        too_long: Violation,
    ) -> Result<(usize, Option<Vec<u8>>), Violation> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(bytes.len(), |end| end + 1);
        if self.held.len() + taken > limit + 2 {
            return Err(too_long);
        }
        self.held.extend_from_slice(&bytes[..taken]);
        if end.is_none() {
            // A CR is the beginning of the end or wrong.
            let body = self.held.strip_suffix(b"\r").unwrap_or(&self.held);
            return if body.contains(&b'\r') { Err(Violation::LineEnd) } else { Ok((taken, None)) };
        }
        let mut line = std::mem::take(&mut self.held);
        line.pop();
        if line.pop() != Some(b'\r') || line.contains(&b'\r') {
            return Err(Violation::LineEnd);
        }
        Ok((taken, Some(line)))
    }
}

fn pass_line(line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}

fn after_body(left: u64) -> State {
    if left == 0 { State::Head { searched: 0 } } else { State::Body(left) }
}

fn after_data(left: u64) -> State {
    if left == 0 { State::ChunkEnd } else { State::ChunkData(left) }
}

/// The size in front of a chunk: hexadecimal digits, then nothing or extensions.
fn chunk_size(line: &[u8]) -> Result<u64, Violation> {
    let digits = line.iter().position(|&byte| byte == b';').unwrap_or(line.len());
    let (digits, extensions) = line.split_at(digits);
    if digits.is_empty() || digits.len() > MAX_SIZE_DIGITS || !extensions.iter().all(|&b| head::is_value(b)) {
        return Err(Violation::Chunk);
    }
    digits.iter().try_fold(0, |size: u64, &digit| {
        let value = char::from(digit).to_digit(16).ok_or(Violation::Chunk)?;
        Ok(size << 4 | u64::from(value))
    })
}

fn next_trailer(line: &[u8], before: usize, fields: usize) -> Result<State, Violation> {
    if line.is_empty() {
        return Ok(State::Head { searched: 0 });
    }
    let (name, _) = head::field(line)?;
    if fields == MAX_FIELDS {
        return Err(Violation::TooManyFields);
    }
    if head::is_of_framing(name) {
        return Err(Violation::Trailers);
    }
    Ok(State::Trailers { bytes: (before + line.len() + 2).min(MAX_TRAILERS), fields: fields + 1 })
}

#[cfg(test)]
mod tests;
