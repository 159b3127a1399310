//! A command in a sandbox, connected to this process: its input, output, terminal, signals and
//! time limit. Whether the sandbox is this process's own or another's makes no difference here.

pub(crate) mod local;
pub(crate) mod remote;

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use rustix::io::Errno;
use sandbox::agent::{AgentError, Ended, Source, WindowSize};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::failure::Failure;
use crate::output::{self, BROKEN_PIPE};
use crate::signals::{self, Signals};
use crate::terminal::{self, RawMode};

/// Exit code of a command that ran out of time, as of coreutils' `timeout`.
const TIMED_OUT: u8 = 124;

/// Between SIGTERM and SIGKILL when the time is up.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// Bytes of standard input read at a time.
const INPUT_CHUNK: usize = 64 * 1024;

/// Why nobody could stay with a command to its end.
#[derive(Debug)]
pub(crate) enum Error {
    /// The sandbox broke off; [`sandbox::Sandbox::explain`] knows more.
    Agent(AgentError),
    /// Something on our side.
    Own(Failure),
}

impl From<AgentError> for Error {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

/// A command that was started.
pub(crate) struct Command<O, I, C> {
    pub(crate) output: O,
    pub(crate) input: I,
    pub(crate) control: C,
}

/// What a command writes, and how it ends.
pub(crate) trait Output: Send + 'static {
    /// Waits for the next thing that happens; what was written is in `buffer` then.
    fn next(&mut self, buffer: &mut Vec<u8>) -> impl Future<Output = Result<Event, Error>> + Send;
}

/// What a command reads.
pub(crate) trait Input: Send + 'static {
    /// Passes bytes on; waits while the command does not read.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = Result<(), Error>> + Send;
    /// No more will come.
    fn finish(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// What can be done to a command.
pub(crate) trait Control: Clone + Send + 'static {
    /// Sends it a signal.
    fn signal(&self, number: i32) -> impl Future<Output = Result<(), Error>> + Send;
    /// Sets the size of its terminal.
    fn resize(&self, size: WindowSize) -> impl Future<Output = Result<(), Error>> + Send;
}

/// One thing that happens to a command.
pub(crate) enum Event {
    /// It wrote something.
    Wrote(Source),
    /// It is at its end; nothing follows.
    Ended(Attended),
}

/// What became of a command, as the exit code that stands for it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attended {
    /// It ended.
    Ended(u8),
    /// It never ran, and the user knows why.
    NotStarted(u8),
}

/// How to connect a command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Connection {
    /// Pass standard input on.
    pub(crate) stdin: bool,
    /// The command has a terminal; ours becomes raw.
    pub(crate) terminal: bool,
    /// It is connected to nobody, and our signals are not for it.
    pub(crate) detached: bool,
    /// End it when it runs longer.
    pub(crate) timeout: Option<Duration>,
}

/// Stays with a running command to its end, and gives the exit code for it. Signals are passed on to
/// it.
pub(crate) async fn attend(
    command: Command<impl Output, impl Input, impl Control>,
    connection: Connection,
    mut signals: Option<&mut Signals>,
) -> Result<Attended, Error> {
    let Command { output, input, control } = command;
    // Without -i keys are not passed on: then Ctrl-C must stay a signal.
    let keys = connection.terminal && connection.stdin && terminal::is_terminal();
    let raw = keys.then(RawMode::enter).transpose();
    let raw = raw.map_err(|error| Error::Own(Failure::io("cannot set the terminal to raw mode", error)))?;
    if connection.stdin {
        tokio::spawn(feed(input, read_stdin()));
    }
    if connection.terminal {
        tokio::spawn(follow_size(control.clone()));
    }
    let mut time = TimeLimit::new(connection.timeout);
    let mut impatience = Impatience::default();
    let deliver = deliver(control);
    let mut hangup = Hangup::default();
    // A task of its own, since whoever reads what we write may stop to; dropped, it ends.
    let mut showing = JoinSet::new();
    showing.spawn(show(output, connection.detached));
    let shown = loop {
        tokio::select! {
            Some(shown) = showing.join_next() => break shown.expect("showing does not panic")?,
            number = signals::next(signals.as_deref_mut()) => {
                if !impatience.passes_on() {
                    return Ok(Attended::Ended(Ended::Signalled(number).exit_code()));
                }
                hangup.heard(number, connection);
                deliver(number);
            },
            () = hangup.is_up() => return Ok(Attended::Ended(HUNG_UP)),
            number = time.next() => match number {
                Some(number) => deliver(number),
                None => return Ok(TimeLimit::over()),
            },
        }
    };
    drop(raw);
    match shown {
        Shown::Ended(_) if time.is_up() => Ok(TimeLimit::over()),
        Shown::Ended(attended) => Ok(attended),
        Shown::ReaderGone => Ok(Attended::Ended(BROKEN_PIPE)),
    }
}

/// Delivers signals in order, and waits for none of them: a VM that hangs never takes one.
fn deliver(control: impl Control) -> impl Fn(i32) {
    let (sender, mut numbers) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(number) = numbers.recv().await {
            if control.signal(number).await.is_err() {
                // The end of the output says why.
                return;
            }
        }
    });
    move |number| {
        let _ = sender.send(number);
    }
}

/// How showing a command's output came to its end.
enum Shown {
    /// With the command.
    Ended(Attended),
    /// Nobody reads what we write any more.
    ReaderGone,
}

/// Writes the command's output to ours until it ends. In the background only its standard error is shown, until
/// whoever started it has been told that it runs: the log has the rest. Writes block the worker thread that they
/// are on, and with it, by credit, the command.
async fn show(mut written: impl Output, detached: bool) -> Result<Shown, Error> {
    let mut buffer = Vec::new();
    loop {
        let source = match written.next(&mut buffer).await? {
            Event::Wrote(Source::Stdout) if detached => continue,
            Event::Wrote(Source::Stderr) if detached && output::has_left() => continue,
            Event::Wrote(source) => source,
            Event::Ended(attended) => return Ok(Shown::Ended(attended)),
        };
        match tokio::task::block_in_place(|| write(source, &buffer)) {
            Ok(()) => {}
            Err(error) if is_gone(&error) => return Ok(Shown::ReaderGone),
            Err(error) => return Err(Error::Own(Failure::io("cannot pass on the command's output", error))),
        }
    }
}

/// Whether there is no reader any more, nor the terminal that was one.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

fn write(source: Source, bytes: &[u8]) -> io::Result<()> {
    match source {
        Source::Stdout => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes)?;
            stdout.flush()
        }
        Source::Stderr => io::stderr().lock().write_all(bytes),
    }
}

/// Reads standard input on a thread of its own: a blocking read cannot be cancelled, and must not
/// keep anything else waiting.
fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(2);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; INPUT_CHUNK];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    if sender.blocking_send(buffer[..length].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot read standard input");
                    return;
                }
            }
        }
    });
    receiver
}

/// Passes input on to its end. A command that has ended does not need it.
async fn feed(mut input: impl Input, mut chunks: mpsc::Receiver<Vec<u8>>) -> Result<(), Error> {
    while let Some(chunk) = chunks.recv().await {
        input.write(&chunk).await?;
    }
    input.finish().await
}

/// Tells the command's terminal the size of ours, which may have changed since it was asked for, and
/// whenever it changes.
async fn follow_size(control: impl Control) -> io::Result<()> {
    let mut changes = signal(SignalKind::window_change())?;
    while control.resize(terminal::size()).await.is_ok() && changes.recv().await.is_some() {}
    Ok(())
}

/// SIGTERM when the time is up, SIGKILL some seconds later, and some seconds after that we stop
/// waiting.
struct TimeLimit {
    deadline: Option<Instant>,
    left: std::slice::Iter<'static, i32>,
}

/// What is sent when the time is up: SIGTERM, SIGKILL.
const LAST_SIGNALS: [i32; 2] = [15, 9];

impl TimeLimit {
    fn new(timeout: Option<Duration>) -> Self {
        Self { deadline: timeout.map(|timeout| Instant::now() + timeout), left: LAST_SIGNALS.iter() }
    }

    /// Waits for the next signal that the time limit asks for, `None` if all were sent; for ever if
    /// there is no limit.
    async fn next(&mut self) -> Option<i32> {
        let Some(deadline) = self.deadline else { return std::future::pending().await };
        sleep_until(deadline).await;
        self.deadline = Some(deadline + KILL_AFTER);
        self.left.next().copied()
    }

    fn is_up(&self) -> bool {
        self.left.len() < LAST_SIGNALS.len()
    }

    /// What has become of the command then.
    fn over() -> Attended {
        output::say("matchlock: the command was ended after its --timeout");
        Attended::Ended(TIMED_OUT)
    }
}

/// How long a command may go on whose terminal has gone away: nobody can reach it there any more.
const HANGUP_PATIENCE: Duration = Duration::from_secs(5);

/// Exit code then: 128 + SIGHUP.
const HUNG_UP: u8 = 129;

/// The end of our terminal, which is the end of a command that was connected to it.
#[derive(Default)]
struct Hangup {
    deadline: Option<Instant>,
}

impl Hangup {
    fn heard(&mut self, number: i32, connection: Connection) {
        if connection.terminal && number == SignalKind::hangup().as_raw_value() {
            self.deadline.get_or_insert_with(|| Instant::now() + HANGUP_PATIENCE);
        }
    }

    /// Waits until the command has had its time; for ever if there was no hangup.
    async fn is_up(&self) {
        match self.deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

/// Signals are the command's, until the user insists: at the third we stop waiting for a command that
/// does not react, or cannot because its VM hangs.
#[derive(Default)]
struct Impatience {
    signals: u32,
}

impl Impatience {
    fn passes_on(&mut self) -> bool {
        self.signals += 1;
        self.signals < 3
    }
}
