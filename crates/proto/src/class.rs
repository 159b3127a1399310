//! Classes of streams: how many there may be and how much is buffered for each.
//!
//! A stream's class follows from the port that it was opened to, so both sides know it from its first
//! frame. Each class has its own allowance: connections cannot use up what commands need.

use crate::Port;

/// What sort of traffic a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Few, and each may need all that the channel can carry: commands, the boot conversation.
    Conversation,
    /// Many, most of them idle: TCP connections.
    Connection,
}

impl Class {
    /// How many classes there are.
    pub(crate) const COUNT: usize = 2;

    /// The class of streams to the port of that number. A port that is not ours is refused anyway.
    #[must_use]
    pub fn of_port(number: u32) -> Self {
        match Port::from_number(number) {
            Some(Port::Forward) => Self::Connection,
            Some(Port::Exec | Port::Boot) | None => Self::Conversation,
        }
    }

    /// Credit of a new stream in each direction, and so the most that is ever buffered for it, bytes.
    #[must_use]
    pub const fn window(self) -> u32 {
        match self {
            // Below this an emulated guest waits for credit more than it sends (measured over
            // virtio-serial).
            Self::Conversation => 2 * 1024 * 1024,
            Self::Connection => 128 * 1024,
        }
    }

    /// Streams of this class that one side may have opened at a time. Times [`Class::window`] it bounds
    /// what a hostile guest can make the host buffer: 512 MiB for commands that the host itself has
    /// started, 256 MiB for connections that the host itself has opened.
    #[must_use]
    pub const fn streams(self) -> usize {
        match self {
            Self::Conversation => 256,
            Self::Connection => 2048,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_guest_cannot_make_the_host_buffer_more_than_this() {
        let most = |class: Class| class.streams() as u64 * u64::from(class.window());
        assert_eq!(most(Class::Conversation), 512 << 20);
        assert_eq!(most(Class::Connection), 256 << 20);
    }

    #[test]
    fn a_port_that_is_not_ours_is_no_way_to_many_streams() {
        assert_eq!(Class::of_port(0), Class::Conversation);
        assert_eq!(Class::of_port(Port::Forward as u32), Class::Connection);
    }
}
