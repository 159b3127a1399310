//! Server-sent events (WHATWG HTML, 9.2.6): replaces texts in the payload of each `data:` line and leaves
//! everything else, line ends included, as it is. A line goes on as soon as its end is seen, so no event
//! waits for the next.

use std::borrow::Cow;

use super::{BodyError, MAX_LINE, Replacer};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Replaces texts in a stream of events.
#[derive(Debug)]
pub struct EventStream {
    replacer: Replacer,
    /// What of the current line was in earlier pieces.
    line: Vec<u8>,
    /// The last byte ended a line with a CR: a LF right after it belongs to that.
    after_return: bool,
    /// Nothing was ended yet: there may be a byte order mark.
    at_start: bool,
}

impl EventStream {
    /// For one response.
    #[must_use]
    pub fn new(replacer: Replacer) -> Self {
        Self { replacer, line: Vec::new(), after_return: false, at_start: true }
    }

    /// Takes a piece of the stream and adds what can go on to `out`.
    ///
    /// # Errors
    /// A line is too long; the stream must end.
    pub fn feed(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        while let Some(&first) = piece.first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                out.push(b'\n');
                piece = &piece[1..];
                continue;
            }
            let Some(end) = piece.iter().position(|&byte| byte == b'\n' || byte == b'\r') else {
                return self.keep(piece);
            };
            let ending = piece[end];
            if self.line.is_empty() {
                self.end_line(&piece[..end], ending, out)?;
            } else {
                self.keep(&piece[..end])?;
                let line = std::mem::take(&mut self.line);
                self.end_line(&line, ending, out)?;
            }
            self.after_return = ending == b'\r';
            out.push(ending);
            piece = &piece[end + 1..];
        }
        Ok(())
    }

    /// Ends the stream. A last line without an end is no event for any client, but goes on.
    ///
    /// # Errors
    /// It is too long.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() { Ok(()) } else { self.end_line(&line, b'\n', out) }
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), BodyError> {
        if self.line.len() + piece.len() > MAX_LINE {
            return Err(BodyError::LineTooLong(MAX_LINE));
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    /// Adds a line, without its end.
    fn end_line(&mut self, line: &[u8], ending: u8, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let mark = if std::mem::take(&mut self.at_start) && line.starts_with(BYTE_ORDER_MARK) {
            BYTE_ORDER_MARK.len()
        } else {
            0
        };
        let Some(rest) = line[mark..].strip_prefix(b"data:") else {
            out.extend_from_slice(line);
            return Ok(());
        };
        let payload = rest.strip_prefix(b" ").unwrap_or(rest);
        let field = &line[mark..line.len() - payload.len()];
        let payload = self
            .replacer
            .apply(Cow::Borrowed(payload), MAX_LINE)
            .map_err(|_| BodyError::LineTooLong(MAX_LINE))?;
        out.extend_from_slice(&line[..mark]);
        // A replacement with line breaks must not become lines of its own: each is data.
        for (at, part) in lines(&payload).enumerate() {
            if at > 0 {
                out.push(ending);
            }
            out.extend_from_slice(field);
            out.extend_from_slice(part);
        }
        Ok(())
    }
}

/// Splits at CRLF, LF and CR.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.iter().position(|&byte| byte == b'\n' || byte == b'\r') else {
            return rest.take();
        };
        let after = &text[end + 1..];
        let pair = text[end] == b'\r' && after.first() == Some(&b'\n');
        rest = Some(if pair { &after[1..] } else { after });
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests;
