//! A command's standard streams: our ends and its ends of pipes or of a terminal.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use proto::agent::{RecordKind, Stdio, WindowSize};
use rustix::fs::{Mode, OFlags, openat};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::tcsetwinsize;

use super::running::winsize;

/// Both ends.
#[derive(Debug)]
pub(super) struct Streams {
    /// What the command gets as 0, 1 and 2.
    pub(super) theirs: [OwnedFd; 3],
    /// Where its input goes.
    pub(super) input: Option<Input>,
    /// Where its output comes from.
    pub(super) outputs: Vec<(RecordKind, Arc<File>)>,
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

impl Streams {
    /// Makes them; terminals come from the file system `terminals`.
    pub(super) fn open(kind: Stdio, terminals: impl AsFd) -> io::Result<Self> {
        match kind {
            Stdio::Pipes { stdin } => Self::pipes(stdin),
            Stdio::Terminal { size } => Self::terminal(size, terminals),
        }
    }

    fn pipes(stdin: bool) -> io::Result<Self> {
        let (their_input, input) = if stdin {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            (reader, Some(Input::Pipe(writer.into())))
        } else {
            (File::open("/dev/null")?.into(), None)
        };
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let outputs = vec![
            (RecordKind::Stdout, Arc::new(stdout.into())),
            (RecordKind::Stderr, Arc::new(stderr.into())),
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
            outputs: vec![(RecordKind::Stdout, Arc::clone(&ours))],
            terminal: Some(ours),
        })
    }
}
