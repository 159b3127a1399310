//! Credit: how many bytes each side of a stream may still send.
//!
//! The receiver's buffer is a window of bytes, by the stream's [`crate::class::Class`]. A sender spends credit with every byte and gets it
//! back when the receiver's *program* has taken the bytes, so a slow reader of one stream can
//! neither fill the host's memory nor hold up another stream.

use thiserror::Error;

/// How often credit is given back for one window of bytes.
const PORTIONS: u32 = 4;

/// The peer broke the rules of credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CreditError {
    /// More data than we had given credit for.
    #[error("peer sent {sent} bytes with a credit of {left}")]
    Overrun {
        /// Length of the frame.
        sent: u32,
        /// What was left.
        left: u32,
    },
    /// More credit than a window can hold.
    #[error("peer gave {given} bytes of credit on top of {had}")]
    Excess {
        /// Credit in the frame.
        given: u32,
        /// Credit we had.
        had: u32,
    },
}

/// The sending half: what we may still send.
#[derive(Debug)]
pub struct Sending {
    window: u32,
    left: u32,
}

/// The receiving half: what the peer may still send, and what we owe it.
#[derive(Debug)]
pub struct Receiving {
    window: u32,
    left: u32,
    owed: u32,
}

impl Sending {
    /// Of a new stream.
    #[must_use]
    pub fn new(window: u32) -> Self {
        Self { window, left: window }
    }

    /// Bytes that may be sent now.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Takes up to `wanted` bytes of credit for one frame, and says how many.
    pub fn spend(&mut self, wanted: u32) -> u32 {
        let spent = wanted.min(self.left);
        self.left -= spent;
        spent
    }

    /// The peer gave credit.
    ///
    /// # Errors
    /// [`CreditError::Excess`] if it gave more than we can have sent.
    pub fn gain(&mut self, given: u32) -> Result<(), CreditError> {
        match self.left.checked_add(given) {
            Some(left) if left <= self.window => self.left = left,
            _ => return Err(CreditError::Excess { given, had: self.left }),
        }
        Ok(())
    }
}

impl Receiving {
    /// Of a new stream.
    #[must_use]
    pub fn new(window: u32) -> Self {
        Self { window, left: window, owed: 0 }
    }

    /// Data arrived.
    ///
    /// # Errors
    /// [`CreditError::Overrun`] if the peer had no credit for it.
    pub fn accept(&mut self, sent: u32) -> Result<(), CreditError> {
        self.left = self.left.checked_sub(sent).ok_or(CreditError::Overrun { sent, left: self.left })?;
        Ok(())
    }

    /// Our program took `bytes` from the buffer; the answer is the credit to give now, if it is
    /// time for a portion.
    pub fn taken(&mut self, bytes: u32) -> Option<u32> {
        self.owed += bytes;
        // In portions, not byte by byte.
        if self.owed < self.window / PORTIONS {
            return None;
        }
        self.left += self.owed;
        Some(std::mem::take(&mut self.owed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::class::Class;

    const WINDOW: u32 = Class::Conversation.window();

    proptest! {
        /// Whatever the order of sends and takes: never more than a window in flight, and a
        /// receiver that takes everything always lets the sender go on.
        #[test]
        fn credit_is_conserved_and_never_starves(
            class in prop_oneof![Just(Class::Conversation), Just(Class::Connection)],
            steps in prop::collection::vec((any::<bool>(), 1u32..200_000), 1..300),
        ) {
            let window = class.window();
            let (mut sending, mut receiving) = (Sending::new(window), Receiving::new(window));
            let mut buffered = 0u32;
            for (send, amount) in steps {
                if send {
                    let spent = sending.spend(amount);
                    receiving.accept(spent).unwrap();
                    buffered += spent;
                } else {
                    let taken = amount.min(buffered);
                    buffered -= taken;
                    if let Some(credit) = receiving.taken(taken) {
                        sending.gain(credit).unwrap();
                    }
                }
                prop_assert!(buffered <= window);
                prop_assert!(sending.left() + buffered + window / PORTIONS > window || buffered > 0);
            }
            if let Some(credit) = receiving.taken(buffered) {
                sending.gain(credit).unwrap();
            }
            prop_assert!(sending.left() > window - window / PORTIONS, "a drained stream must be able to send");
        }
    }

    #[test]
    fn a_peer_that_cheats_is_caught() {
        assert_eq!(Sending::new(WINDOW).gain(1), Err(CreditError::Excess { given: 1, had: WINDOW }));
        let mut receiving = Receiving::new(WINDOW);
        receiving.accept(WINDOW).unwrap();
        assert_eq!(receiving.accept(1), Err(CreditError::Overrun { sent: 1, left: 0 }));
    }
}
