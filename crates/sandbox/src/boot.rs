//! The boot conversation: from a started VM to one that takes commands.
//!
//! A failure says how far the guest had come, because that is what tells a broken kernel from a
//! broken image from a host that is merely slow.

use std::fmt;
use std::time::Duration;

use api::{Explain, Kind};
use proto::boot::{BootConfig, Control, Hello, Progress, Stage};
use proto::{Port, VERSION};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use vmm::channel::{Channel, ChannelError, Stream};

use crate::agent::{AgentError, read_message, write_message};
use crate::timings::Timings;

/// How long a VM may take from its start to being ready. Emulation on a busy machine takes a few
/// seconds; anything near this is a hang.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// How far a guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// The VMM runs; the guest kernel has not started our `/init` yet.
    VmStarted,
    /// `/init` runs and has found its channel.
    GuestGreeted,
    /// A stage of the guest's own.
    Guest(Stage),
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VmStarted => "the VM was started, its kernel had not reached /init",
            Self::GuestGreeted => "/init was running and had connected",
            Self::Guest(Stage::Configured) => "/init had its configuration, disks were not mounted",
            Self::Guest(Stage::DisksMounted) => "disks were mounted, the root was not assembled",
            Self::Guest(Stage::RootMounted) => "the root was assembled, the system was not set up",
            Self::Guest(Stage::SystemSet) => "the system was set up, the agent was not listening",
        })
    }
}

/// The guest did not become ready.
#[derive(Debug, Error)]
pub enum BootError {
    /// It took too long.
    #[error("the VM was not ready after {} s: {reached}", after.as_secs())]
    Timeout {
        /// The time it was given.
        after: Duration,
        /// How far it had come.
        reached: Reached,
    },
    /// The guest says that something failed.
    #[error("the guest could not boot ({reached}): {message}")]
    Guest {
        /// The guest's words.
        message: String,
        /// How far it had come.
        reached: Reached,
    },
    /// Another version of the guest binary; cannot happen unless a foreign one is booted.
    #[error("the guest speaks protocol version {0}, this is {VERSION}")]
    Version(u32),
    /// The channel ended.
    #[error("the VM ended while booting: {reached}")]
    Channel {
        /// How far it had come.
        reached: Reached,
        /// Why.
        source: ChannelError,
    },
    /// The guest says that it has come to where it was already: it is hostile.
    #[error("the guest does not go on: {reached}")]
    Backwards {
        /// How far it had come.
        reached: Reached,
    },
    /// The guest broke off or spoke nonsense.
    #[error("the boot conversation failed: {reached}")]
    Conversation {
        /// How far it had come.
        reached: Reached,
        /// Why.
        source: AgentError,
    },
}

impl Explain for BootError {
    fn kind(&self) -> Kind {
        match self {
            Self::Timeout { .. } => Kind::Timeout,
            _ => Kind::Vm,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Timeout { reached: Reached::VmStarted, .. } => {
                Some("check the kernel with `matchlock diagnose`, or give the VM more --memory".into())
            }
            Self::Timeout { .. } => Some("the host may be overloaded; try again, or with more --cpus".into()),
            _ => None,
        }
    }
}

/// The boot stream of a VM that is ready; closing it makes the guest power off.
#[derive(Debug)]
pub struct Booted {
    stream: Stream,
}

impl Booted {
    /// Asks the guest to end all commands (SIGTERM, and SIGKILL after `grace`) and to power off
    /// with its disks synced.
    ///
    /// # Errors
    /// When the guest is gone already.
    pub async fn power_off(&mut self, grace: Duration) -> Result<(), AgentError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        write_message(&mut self.stream, &Control::PowerOff { grace_ms }).await
    }
}

/// Leads the conversation. `config` is asked for when the guest has greeted, so that its clock is
/// fresh.
///
/// # Errors
/// See [`BootError`].
pub async fn converse(
    channel: &Channel,
    config: impl FnOnce() -> BootConfig,
    timings: &mut Timings,
) -> Result<Booted, BootError> {
    let mut reached = Reached::VmStarted;
    let deadline = Instant::now() + TIMEOUT;
    match timeout_at(deadline, steps(channel, config, timings, &mut reached)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(BootError::Timeout { after: TIMEOUT, reached }),
    }
}

async fn steps(
    channel: &Channel,
    config: impl FnOnce() -> BootConfig,
    timings: &mut Timings,
    reached: &mut Reached,
) -> Result<Booted, BootError> {
    let accepted = channel.accept(Port::Boot).await;
    let mut stream = accepted.map_err(|source| BootError::Channel { reached: *reached, source })?;
    let hello: Hello = read_message(&mut stream).await.map_err(conversation(*reached))?;
    if hello.version != VERSION {
        return Err(BootError::Version(hello.version));
    }
    *reached = Reached::GuestGreeted;
    timings.mark("guest kernel");
    write_message(&mut stream, &config()).await.map_err(conversation(*reached))?;
    loop {
        match read_message(&mut stream).await.map_err(conversation(*reached))? {
            Progress::Reached { stage, .. } => {
                // Each once and in order: what is said is noted.
                if Reached::Guest(stage) <= *reached {
                    return Err(BootError::Backwards { reached: *reached });
                }
                *reached = Reached::Guest(stage);
                timings.mark(match stage {
                    Stage::Configured => "guest configuration",
                    Stage::DisksMounted => "guest disks",
                    Stage::RootMounted => "guest root",
                    Stage::SystemSet => "guest system",
                });
            }
            Progress::Ready { .. } => {
                timings.mark("guest agent");
                return Ok(Booted { stream });
            }
            Progress::Failed { message } => return Err(BootError::Guest { message, reached: *reached }),
        }
    }
}

fn conversation(reached: Reached) -> impl FnOnce(AgentError) -> BootError {
    move |source| BootError::Conversation { reached, source }
}

#[cfg(test)]
mod tests {
    use proto::boot::Root;
    use proto::frame::{HEADER_LEN, Header};
    use proto::message;
    use proto::mux::{Mux, Side};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    use super::*;

    /// A guest that says all of this at once, and hears nothing.
    async fn guest(mut socket: UnixStream, said: Vec<u8>) {
        let mut mux = Mux::new(Side::Guest);
        let (stream, open) = mux.open(Port::Boot as u32).unwrap();
        socket.write_all(&open.encode()).await.unwrap();
        let data = mux.send(stream, said.len()).unwrap().expect("there is credit for a few messages");
        assert_eq!(data.payload_len(), said.len());
        socket.write_all(&[&data.encode()[..], &said].concat()).await.unwrap();
        let mut header = [0; HEADER_LEN];
        while socket.read_exact(&mut header).await.is_ok() {
            let mut payload = vec![0; Header::decode(&header).unwrap().payload_len()];
            socket.read_exact(&mut payload).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_guest_that_comes_to_the_same_place_again_is_not_followed() {
        let (host, theirs) = UnixStream::pair().unwrap();
        let reached = |stage| message::encode(&Progress::Reached { stage, uptime_us: 0 }).unwrap();
        let hello = message::encode(&Hello { version: VERSION, uptime_us: 0 }).unwrap();
        let said = [hello, reached(Stage::RootMounted), reached(Stage::RootMounted)].concat();
        tokio::spawn(guest(theirs, said));
        let channel = Channel::new(host, &[Port::Boot]);
        let mut timings = Timings::start();
        let config = || BootConfig {
            hostname: "guest".into(),
            hosts: Vec::new(),
            dns_servers: Vec::new(),
            clock_unix_ns: 0,
            entropy: Vec::new(),
            disks: Vec::new(),
            root: Root { layers: Vec::new(), scratch: String::new(), durable: false },
            mounts: Vec::new(),
            cpu_quota_millis: None,
            network: None,
            certificate: None,
        };
        let error = converse(&channel, config, &mut timings).await.unwrap_err();
        let reached = Reached::Guest(Stage::RootMounted);
        assert!(matches!(error, BootError::Backwards { reached: at } if at == reached), "{error:?}");
        assert_eq!(timings.stages().len(), 2);
    }
}
