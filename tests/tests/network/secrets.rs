//! Secrets.

/// `text` in base64, as `Basic` has it.
pub(crate) fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |chunk: &[u8]| {
        let bits = chunk.iter().chain(&[0, 0]).take(3).fold(0, |bits, byte| bits << 8 | usize::from(*byte));
        let shown = chunk.len() + 1;
        (0..4).map(move |at| if at < shown { char::from(DIGITS[bits >> (18 - 6 * at) & 63]) } else { '=' })
    };
    text.as_bytes().chunks(3).flat_map(digits).collect()
}
