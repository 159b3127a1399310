//! Which sandbox a user means.

use super::State;
use super::error::{Fault, FindError};
use super::record::{Record, select};

/// How many sandboxes an ambiguous text is answered with at most: what fits on a screen.
const MAX_CANDIDATES: usize = 10;

impl State {
    /// The sandbox that a user calls `text`: by its ID, its name, or the first digits of its ID,
    /// with or without `vm-`, if no other ID begins so. A name goes before digits.
    ///
    /// # Errors
    /// When there is none, or the digits fit several.
    pub fn find(&self, text: &str) -> Result<Record, FindError> {
        let mut found = self.read(|connection| {
            // The form of IDs is no name, so at most one row.
            let exact = select(connection, "WHERE id = ?1 OR name = ?1", &[text])?;
            match id_range(text) {
                Some((first, end)) if exact.is_empty() => {
                    select(connection, "WHERE id >= ?1 AND id < ?2 ORDER BY id", &[&first, &end])
                }
                _ => Ok::<_, Fault>(exact),
            }
        })?;
        match found.len() {
            0 => Err(FindError::NotFound(text.to_owned())),
            1 => Ok(found.remove(0)),
            count => Err(FindError::Ambiguous {
                text: text.to_owned(),
                candidates: found.iter().take(MAX_CANDIDATES).map(|record| record.id).collect(),
                more: count.saturating_sub(MAX_CANDIDATES),
            }),
        }
    }
}

/// The range of IDs, first and end, that begin with the digits in `text`; `None` if it has no
/// digits or something else.
fn id_range(text: &str) -> Option<(String, String)> {
    let digits = text.strip_prefix("vm-").unwrap_or(text);
    let hexadecimal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    // 'g' comes after every digit.
    (hexadecimal && !digits.is_empty()).then(|| (format!("vm-{digits}"), format!("vm-{digits}g")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hexadecimal_digits_are_the_beginning_of_an_id() {
        let range = |text| id_range(text).map(|(first, _)| first);
        assert_eq!(range("vm-0a"), Some("vm-0a".into()));
        assert_eq!(range("0a"), Some("vm-0a".into()));
        for wrong in ["", "vm-", "vm", "v", "vm-0g", "0A", "vm-vm-0", "%", "_", "0'"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }
}
