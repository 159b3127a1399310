//! All that is done to one body: texts replaced, then values of secrets hidden, so that no replacement can
//! put one together.

use std::borrow::Cow;

use super::{BodyError, EventStream, MAX_WHOLE, Replacer};
use crate::secret::{MaskStream, Masker};

/// Changes a body as it streams by.
pub struct Filter {
    events: Option<EventStream>,
    mask: Option<MaskStream>,
    /// Between the two.
    replaced: Vec<u8>,
}

impl Filter {
    /// Makes these replacements in each event of a stream of events, and hides values.
    #[must_use]
    pub fn new(replacer: Replacer, masker: Option<&Masker>) -> Self {
        let events = (!replacer.is_empty()).then(|| EventStream::new(replacer));
        Self { events, mask: masker.map(Masker::stream), replaced: Vec::new() }
    }

    /// Takes a piece of the body and adds what can go on to `out`.
    ///
    /// # Errors
    /// The rest cannot be changed as it must be; the body must be broken off.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        match (&mut self.events, &mut self.mask) {
            (Some(events), Some(mask)) => {
                self.replaced.clear();
                events.feed(piece, &mut self.replaced)?;
                mask.feed(&self.replaced, out);
            }
            (Some(events), None) => events.feed(piece, out)?,
            (None, Some(mask)) => mask.feed(piece, out),
            (None, None) => out.extend_from_slice(piece),
        }
        Ok(())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// As for [`Filter::feed`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.replaced.clear();
        if let Some(events) = &mut self.events {
            events.finish(&mut self.replaced)?;
        }
        match &mut self.mask {
            Some(mask) => {
                mask.feed(&self.replaced, out);
                mask.finish(out);
            }
            None => out.extend_from_slice(&self.replaced),
        }
        Ok(())
    }
}

/// Changes a body as a whole.
pub struct Whole {
    replacer: Replacer,
    masker: Option<Masker>,
}

impl Whole {
    /// Makes these replacements, and hides values.
    #[must_use]
    pub fn new(replacer: Replacer, masker: Option<Masker>) -> Self {
        Self { replacer, masker }
    }

    /// The changed body.
    ///
    /// # Errors
    /// It is or would become longer than [`MAX_WHOLE`].
    pub fn change(&self, body: Vec<u8>) -> Result<Vec<u8>, BodyError> {
        if body.len() > MAX_WHOLE {
            return Err(BodyError::TooLong(MAX_WHOLE));
        }
        let body = self.replacer.apply(Cow::Owned(body), MAX_WHOLE)?.into_owned();
        let Some(masker) = &self.masker else { return Ok(body) };
        let mut masked = Vec::with_capacity(body.len());
        let mut mask = masker.stream();
        mask.feed(&body, &mut masked);
        mask.finish(&mut masked);
        Ok(masked)
    }
}
