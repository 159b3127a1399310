//! From the stream to a command's standard input.

use std::fs::File;
use std::io::{self, Write as _};

use proto::agent::{RECORD_HEADER_LEN, RecordHeader, RecordKind};

use super::stdio::Input;
use crate::transport::{Stream, StreamError};

/// Bytes moved at a time.
const CHUNK: usize = 64 * 1024;

/// What ends the input on a terminal (`VEOF`, Ctrl-D) unless the program has made that something else.
const END_OF_INPUT: u8 = 0x04;

/// Moves input until the host ends the stream, resets it or breaks the rules. A command that does not
/// read, or has closed its input, is nobody's fault.
pub(super) fn relay(stream: &Stream, input: Input) {
    let mut input = Some(input);
    let mut buffer = vec![0; CHUNK];
    while let Ok(Some(length)) = record(stream) {
        let moved = match length {
            0 => end(&mut input),
            length => pass(stream, length, &mut input, &mut buffer),
        };
        if moved.is_err() {
            return;
        }
    }
}

/// The length of the next record of input; `None` if there will be no more.
fn record(stream: &Stream) -> Result<Option<u32>, StreamError> {
    let mut header = [0; RECORD_HEADER_LEN];
    stream.read_exact(&mut header)?;
    let header = RecordHeader::decode(header).ok().filter(|header| header.kind == RecordKind::Stdin);
    Ok(header.map(|header| header.length))
}

fn pass(
    stream: &Stream,
    length: u32,
    input: &mut Option<Input>,
    buffer: &mut [u8],
) -> Result<(), StreamError> {
    let mut left = usize::try_from(length).expect("at most MAX_RECORD");
    while left > 0 {
        let part = &mut buffer[..left.min(CHUNK)];
        let read = stream.read(part)?;
        if read == 0 {
            return Err(StreamError::Truncated);
        }
        left -= read;
        if input.as_mut().is_some_and(|input| write(input, &part[..read]).is_err()) {
            // Nobody will read it; the rest is thrown away.
            *input = None;
        }
    }
    Ok(())
}

fn end(input: &mut Option<Input>) -> Result<(), StreamError> {
    if let Some(Input::Terminal(_)) = input
        && let Some(terminal) = input
    {
        let _ = write(terminal, &[END_OF_INPUT]);
        return Ok(());
    }
    *input = None;
    Ok(())
}

fn write(input: &mut Input, bytes: &[u8]) -> io::Result<()> {
    let mut file: &File = match input {
        Input::Pipe(pipe) => pipe,
        Input::Terminal(terminal) => terminal,
    };
    file.write_all(bytes)
}
