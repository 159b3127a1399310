//! Standard output: lines, tables and JSON for the user, and nothing else ever. And what is said beside it,
//! on standard error.

use std::io::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anstream::{AutoStream, ColorChoice};
use comfy_table::{Table, presets};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{retry_on_intr, write};
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// Exit code of a writer whose reader has gone: 128 + SIGPIPE, as a shell shows it.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Writes bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(BROKEN_PIPE),
        Err(error) => Err(Failure::io("cannot write to standard output", error)),
    }
}

/// Writes one line.
pub(crate) fn line(line: &str) -> Outcome {
    bytes(format!("{line}\n").as_bytes())
}

/// Writes lines with styles (ANSI escapes) where standard output is a terminal, and without elsewhere.
pub(crate) fn styled(text: &str) -> Outcome {
    bytes(&rendered(text, AutoStream::choice(&io::stdout())))
}

fn rendered(text: &str, choice: ColorChoice) -> Vec<u8> {
    let mut stream = AutoStream::new(Vec::new(), choice);
    stream.write_all(text.as_bytes()).expect("memory takes everything");
    stream.into_inner()
}

/// Tells the user something on standard error.
pub(crate) fn say(text: &str) {
    complain(format!("{}\n", harmless(text)).as_bytes());
}

/// The same with styles, of which what it is made of has none.
pub(crate) fn say_styled(text: &str) {
    complain(&rendered(text, AutoStream::choice(&io::stderr())));
}

/// Writes to standard error, if that can be done soon. What cannot, as to a full disk or a terminal that is
/// gone, is nobody's loss: above all it must neither end a sandbox nor hold up its end.
fn complain(bytes: &[u8]) {
    const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    // Not by way of `io::stderr()`: whoever shows a command's output has its lock while nobody reads that.
    let stderr = rustix::stdio::stderr();
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
        if !retry_on_intr(|| poll(&mut ready, Some(&PATIENCE))).is_ok_and(|ready| ready > 0) {
            return;
        }
        // A pipe that takes anything takes so much.
        match write(stderr, &rest[..rest.len().min(PIPE_BUF)]) {
            Ok(written @ 1..) => rest = &rest[written..],
            _ => return,
        }
    }
}

/// `PIPE_BUF` of `<linux/limits.h>`.
const PIPE_BUF: usize = 4096;

/// [`complain`] for those who write.
pub(crate) struct Complaints;

impl io::Write for Complaints {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        complain(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether standard error is no longer that of whoever started this process.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Standard error is our own now.
pub(crate) fn leave() {
    LEFT.store(true, Ordering::Relaxed);
}

/// Whether it is.
pub(crate) fn has_left() -> bool {
    LEFT.load(Ordering::Relaxed)
}

/// As much of a text as anybody would read, without what plays with a terminal: a sandbox, or whoever answers
/// in a VMM's place, may have a word in it.
pub(crate) fn harmless(text: &str) -> String {
    let shown = |character: char| match character {
        '\n' | '\t' => character,
        control if control.is_control() => char::REPLACEMENT_CHARACTER,
        other => other,
    };
    text.chars().take(MOST_SAID).map(shown).collect()
}

/// Characters.
const MOST_SAID: usize = 8192;

/// Writes a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value).expect("our own types serialize");
    line(&text)
}

/// Writes rows under a header, in columns without a frame.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Outcome {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    line(&table.trim_fmt())
}

/// A number of bytes for people, in powers of ten as `ls -h --si` and Docker do.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// How long ago a time (seconds of the Unix epoch) was, in the largest unit that fits.
pub(crate) fn age(created: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = now.saturating_sub(created);
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// The last that RFC 3339 can write, the end of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// A time (milliseconds of the Unix epoch) as RFC 3339 writes it, in UTC. What a clock gone wrong
/// has put beyond all bounds is shown as the bound.
pub(crate) fn rfc3339(at: i64) -> String {
    let since = Duration::from_millis(u64::try_from(at).unwrap_or(0)).min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_cannot_play_with_the_terminal() {
        assert_eq!(
            harmless("a\u{1b}]0;x\u{7} b\r\nc\t\u{9b}m"),
            "a\u{fffd}]0;x\u{fffd} b\u{fffd}\nc\t\u{fffd}m"
        );
        assert_eq!(harmless(&"é".repeat(1 << 20)).chars().count(), MOST_SAID);
    }

    #[test]
    fn times_of_a_clock_gone_wrong_are_shown_all_the_same() {
        for (at, shown) in [
            (i64::MIN, "1970-01-01T00:00:00.000Z"),
            (1500, "1970-01-01T00:00:01.500Z"),
            (i64::MAX, "9999-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(at), shown);
        }
        assert_eq!(age(u64::MAX), "0 seconds ago", "what is yet to come was just now");
        assert!(age(0).ends_with(" days ago"));
    }
}
