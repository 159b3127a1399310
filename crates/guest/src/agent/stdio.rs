//! A command's standard streams: our ends and its ends of pipes or of a terminal.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use proto::agent::{RecordKind, Stdio, WindowSize};
use rustix::fs::{Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::tcsetwinsize;

use super::running::winsize;

/// What a pipe holds, bytes; only what is in it takes memory, and that is the command's.
const PIPE: usize = 1024 * 1024;

/// Both ends.
#[derive(Debug)]
pub(super) struct Streams {
    /// What the command gets as 0, 1 and 2.
    pub(super) theirs: [OwnedFd; 3],
    /// Where its input goes.
    pub(super) input: Option<Input>,
    /// Where its output comes from.
    pub(super) outputs: Vec<Output>,
    /// Our side of its terminal.
    pub(super) terminal: Option<Arc<File>>,
}

/// Where a command's input goes.
#[derive(Debug)]
pub(super) enum Input {
    /// A pipe, whose closing is the end.
    Pipe(File),
    /// A terminal, where a character is.
    Terminal(Arc<File>),
}

/// Where a command's output comes from.
#[derive(Debug)]
pub(super) enum Output {
    /// The pipe of one of its outputs.
    Pipe(RecordKind, File),
    /// A terminal.
    Terminal(Arc<File>),
}

impl Output {
    /// What it is sent as.
    pub(super) fn kind(&self) -> RecordKind {
        match self {
            Self::Pipe(kind, _) => *kind,
            Self::Terminal(_) => RecordKind::Stdout,
        }
    }

    /// What to read.
    pub(super) fn file(&self) -> &File {
        match self {
            Self::Pipe(_, pipe) => pipe,
            Self::Terminal(terminal) => terminal,
        }
    }
}

impl Streams {
    /// Makes them; terminals come from the file system `terminals`, and a command without input reads `null`.
    pub(super) fn open(kind: Stdio, terminals: impl AsFd, null: &File) -> io::Result<Self> {
        match kind {
            Stdio::Pipes { stdin } => Self::pipes(stdin, null),
            Stdio::Terminal { size } => Self::terminal(size, terminals),
        }
    }

    fn pipes(stdin: bool, null: &File) -> io::Result<Self> {
        let (their_input, input) = if stdin {
            let (reader, writer) = pipe()?;
            (reader, Some(Input::Pipe(writer.into())))
        } else {
            (null.try_clone()?.into(), None)
        };
        let (stdout, their_stdout) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        let outputs = vec![
            Output::Pipe(RecordKind::Stdout, stdout.into()),
            Output::Pipe(RecordKind::Stderr, stderr.into()),
        ];
        Ok(Self { theirs: [their_input, their_stdout, their_stderr], input, outputs, terminal: None })
    }

    fn terminal(size: WindowSize, terminals: impl AsFd) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let ours = openat(terminals, "ptmx", flags, Mode::empty())?;
        unlockpt(&ours)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        tcsetwinsize(&ours, winsize(size))?;
        let ours = Arc::new(File::from(ours));
        Ok(Self {
            theirs: [theirs.try_clone()?, theirs.try_clone()?, theirs],
            input: Some(Input::Terminal(Arc::clone(&ours))),
            outputs: vec![Output::Terminal(Arc::clone(&ours))],
            terminal: Some(ours),
        })
    }
}

/// A pipe with room for much, so that an emulated CPU changes seldom between the command and us.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&writer, PIPE)?;
    Ok((reader, writer))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::pipe::fcntl_getpipe_size;

    use super::*;

    fn null() -> File {
        File::open("/dev/null").unwrap()
    }

    #[test]
    fn pipes_are_large_in_both_directions() {
        let streams = Streams::pipes(true, &null()).unwrap();
        let Some(Input::Pipe(input)) = &streams.input else { panic!() };
        assert_eq!(fcntl_getpipe_size(input).unwrap(), PIPE);
        for output in &streams.outputs {
            assert_eq!(fcntl_getpipe_size(output.file()).unwrap(), PIPE);
        }
    }

    #[test]
    fn a_command_without_input_reads_what_was_opened_at_boot() {
        let null = null();
        let Streams { theirs: [stdin, ..], input, .. } = Streams::pipes(false, &null).unwrap();
        let stdin = File::from(stdin).metadata().unwrap();
        assert_eq!(stdin.rdev(), null.metadata().unwrap().rdev());
        assert!(input.is_none());
    }
}
