//! A process under test: in a group of its own, its output collected, never waited for beyond a
//! deadline, never outliving its test.

use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
pub use rustix::process::{Pid, Signal};
use rustix::process::{PidfdFlags, kill_process, kill_process_group, pidfd_open};

/// How a process ended, and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// From its start to its end.
    pub duration: Duration,
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The output of a process that must have succeeded.
    ///
    /// # Panics
    /// When it did not, with all that it wrote.
    #[must_use]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout_text(), self.stderr_text());
        self
    }
}

/// A process under test. Dropped before it has ended, it and its whole group are killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Arc<Collector>,
    stderr: Arc<Collector>,
    started: Instant,
    deadline: Instant,
    reaped: bool,
}

impl Running {
    /// Starts `command`; it has `limit` to end. Its standard input is [`Self::input`], empty if
    /// `command` says so.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command, limit: Duration) -> Self {
        use std::os::unix::process::CommandExt as _;
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdout = Collector::of(child.stdout.take().expect("it is a pipe"));
        let stderr = Collector::of(child.stderr.take().expect("it is a pipe"));
        Self { child, stdout, stderr, started, deadline: started + limit, reaped: false }
    }

    /// Its process ID.
    ///
    /// # Panics
    /// Never: a child has one.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends it, and nobody else in its group, a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the process under test is gone already");
    }

    /// Sends its whole group a signal, as a terminal does for Ctrl-C.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal_group(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).expect("the process under test is gone already");
    }

    /// Writes to its standard input, little enough for a pipe to hold. A reader that has gone is no
    /// failure of the writer.
    ///
    /// # Panics
    /// When its standard input is no pipe.
    pub fn input(&mut self, bytes: &[u8]) {
        let _ = self.child.stdin.as_mut().expect("standard input is a pipe").write_all(bytes);
    }

    /// Writes all of `bytes` to its standard input and ends that, while the test goes on.
    ///
    /// # Panics
    /// When its standard input is no pipe.
    pub fn feed(&mut self, bytes: Vec<u8>) {
        let mut stdin = self.child.stdin.take().expect("standard input is a pipe");
        thread::spawn(move || stdin.write_all(&bytes));
    }

    /// Waits until its standard output contains `text`.
    ///
    /// # Panics
    /// When that is not so by the deadline, or can no longer become so.
    pub fn wait_for_stdout(&self, text: &str) {
        self.stdout
            .wait_for(text, self.deadline)
            .unwrap_or_else(|| self.give_up(&format!("{text:?} on stdout")));
    }

    /// Waits until its standard error contains `text`.
    ///
    /// # Panics
    /// When that is not so by the deadline, or can no longer become so.
    pub fn wait_for_stderr(&self, text: &str) {
        self.stderr
            .wait_for(text, self.deadline)
            .unwrap_or_else(|| self.give_up(&format!("{text:?} on stderr")));
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr_so_far(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    /// Ends its standard input unless it is being fed; waits for its end, and for that of its output.
    ///
    /// # Panics
    /// When it has not ended by the deadline, or somebody whom it left behind keeps its output open.
    #[must_use]
    pub fn wait(mut self) -> Output {
        drop(self.child.stdin.take());
        if !self.ends_in_time() {
            self.give_up("its end");
        }
        let duration = self.started.elapsed();
        let status = self.child.wait().expect("it is our child");
        // What it leaves behind is to be found by the test, not tidied away.
        self.reaped = true;
        let grace = Instant::now() + Duration::from_secs(5);
        for (name, collector) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if collector.wait_for_end(grace).is_none() {
                self.give_up(&format!("the end of its {name}, which a process it left behind holds open"));
            }
        }
        Output { code: status.code(), stdout: self.stdout.bytes(), stderr: self.stderr.bytes(), duration }
    }

    fn ends_in_time(&self) -> bool {
        let pidfd =
            pidfd_open(self.pid(), PidfdFlags::empty()).expect("it is our child, and not yet waited for");
        let left = self.deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("a test's deadline is no eternity");
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)).is_ok_and(|ready| ready == 1)
    }

    fn give_up(&self, awaited: &str) -> ! {
        let text = |collector: &Collector| String::from_utf8_lossy(&collector.bytes()).into_owned();
        panic!(
            "waited {:?} in vain for {awaited}\nstdout:\n{}\nstderr:\n{}",
            self.started.elapsed(),
            text(&self.stdout),
            text(&self.stderr)
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            kill_process_group(self.pid(), Signal::KILL)
                .expect("a child that was not waited for has its group");
            self.child.wait().expect("it is our child");
        }
    }
}

/// The most memory that a process has had, KiB.
///
/// # Panics
/// When there is no such process.
#[must_use]
pub fn peak_memory_kib(pid: Pid) -> u64 {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or_else(|| panic!("no VmHWM in {status}"))
}

/// A process and all that descend from it and live.
#[must_use]
pub fn family(root: Pid) -> Vec<Pid> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        let children = format!("/proc/{0}/task/{0}/children", parent.as_raw_nonzero());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        family.extend(children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)));
        next += 1;
    }
    family
}

/// What was read from a pipe so far.
#[derive(Debug, Default)]
struct Collector {
    state: Mutex<Collected>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Collected {
    bytes: Vec<u8>,
    ended: bool,
}

impl Collector {
    /// Reads `pipe` to its end on a thread.
    fn of(mut pipe: impl Read + Send + 'static) -> Arc<Self> {
        let collector = Arc::new(Self::default());
        let filled = Arc::clone(&collector);
        thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            loop {
                let length = pipe.read(&mut chunk).unwrap_or(0);
                let mut state = filled.state.lock().expect("no holder of the lock panics");
                state.bytes.extend_from_slice(&chunk[..length]);
                state.ended = length == 0;
                filled.changed.notify_all();
                if state.ended {
                    return;
                }
            }
        });
        collector
    }

    fn bytes(&self) -> Vec<u8> {
        self.state.lock().expect("no holder of the lock panics").bytes.clone()
    }

    fn wait_for(&self, text: &str, deadline: Instant) -> Option<()> {
        self.wait_until(deadline, |bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    fn wait_for_end(&self, deadline: Instant) -> Option<()> {
        let _ = self.wait_until(deadline, |_| false);
        self.state.lock().expect("no holder of the lock panics").ended.then_some(())
    }

    /// Waits until the bytes satisfy `holds`; `None` if they did not by the deadline or the end.
    fn wait_until(&self, deadline: Instant, holds: impl Fn(&[u8]) -> bool) -> Option<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        let state = self.state.lock().expect("no holder of the lock panics");
        let waiting = |state: &mut Collected| !state.ended && !holds(&state.bytes);
        let (state, _) =
            self.changed.wait_timeout_while(state, left, waiting).expect("no holder of the lock panics");
        holds(&state.bytes).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit_ms: u64) -> Running {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped());
        Running::start(&mut command, Duration::from_millis(limit_ms))
    }

    #[test]
    fn output_and_exit_code_are_kept_apart() {
        let mut running = shell("read line; echo $line; echo err >&2; exit 3", 10_000);
        running.input(b"hello\n");
        let output = running.wait();
        assert_eq!((output.code, output.stdout_text().as_str()), (Some(3), "hello\n"));
        assert_eq!(output.stderr_text(), "err\n");
    }

    #[test]
    fn input_over_the_size_of_a_pipe_is_fed() {
        let mut running = shell("wc -c", 10_000);
        running.feed(vec![b'x'; 1 << 20]);
        assert_eq!(running.wait().stdout_text().trim(), "1048576");
    }

    #[test]
    fn a_signal_arrives_once_the_output_says_that_it_can() {
        let running = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done", 10_000);
        running.wait_for_stdout("ready");
        running.signal(Signal::TERM);
        assert_eq!(running.wait().code, Some(7));
    }

    #[test]
    #[should_panic(expected = "in vain for its end")]
    fn a_hanging_process_is_a_failure() {
        let _ = shell("sleep 1000", 50).wait();
    }

    #[test]
    fn the_group_dies_with_its_handle() {
        let running = shell("sleep 1000 & echo $!; wait", 10_000);
        running.wait_for_stdout("\n");
        let sleeper: i32 = String::from_utf8(running.stdout.bytes()).unwrap().trim().parse().unwrap();
        let sleeper =
            Pid::from_raw(sleeper).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).unwrap();
        drop(running);
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&sleeper, PollFlags::IN)], Some(&patience)), Ok(1));
    }
}
