//! Certificates as text (RFC 7468): bundles of the image's with ours in them, and what is inside.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The line before our certificate in a bundle.
const MARK: &[u8] = b"# matchlock sandbox CA\n";

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";

/// The bundle with our certificate as its last, and none that was ours before: neither a marked one nor
/// `previous`, which the image's own tools may have put there.
pub(super) fn with(bundle: &[u8], certificate: &str, previous: Option<&[u8]>) -> Vec<u8> {
    let mut merged = Vec::with_capacity(bundle.len() + MARK.len() + certificate.len() + 2);
    let mut rest = bundle;
    while let Some((text, ours, after)) = split(rest, previous) {
        merged.extend(text);
        if !ours {
            merged.extend(&rest[text.len()..rest.len() - after.len()]);
        }
        rest = after;
    }
    merged.extend(rest);
    if merged.last().is_some_and(|last| *last != b'\n') {
        merged.push(b'\n');
    }
    merged.extend(MARK);
    merged.extend(certificate.trim_end().as_bytes());
    merged.push(b'\n');
    merged
}

/// What comes before the next certificate (and its mark), whether that was ours, and what follows it.
fn split<'a>(bundle: &'a [u8], previous: Option<&[u8]>) -> Option<(&'a [u8], bool, &'a [u8])> {
    let mut at = 0;
    let mut begin = None;
    let mut mark = None;
    for line in bundle.split_inclusive(|byte| *byte == b'\n') {
        let start = at;
        at += line.len();
        if line == MARK {
            // Also if it was the last that could be written.
            mark = mark.or(Some(start));
        } else if line.starts_with(BEGIN) {
            begin = Some(start);
        } else if let (true, Some(begin)) = (line.starts_with(END), begin) {
            let certificate = bundle[begin..at].trim_ascii();
            let ours =
                mark.is_some() || previous.is_some_and(|previous| previous.trim_ascii() == certificate);
            return Some((&bundle[..mark.unwrap_or(begin)], ours, &bundle[at..]));
        }
    }
    mark.map(|mark| (&bundle[..mark], true, &[][..]))
}

/// The certificates of a bundle, DER, as far as they can be read.
pub(super) fn certificates(bundle: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut inside: Option<Vec<u8>> = None;
    for line in bundle.split(|byte| *byte == b'\n') {
        if line.starts_with(BEGIN) {
            inside = Some(Vec::new());
        } else if line.starts_with(END) {
            found.extend(inside.take().and_then(|text| STANDARD.decode(text).ok()));
        } else if let Some(text) = &mut inside {
            text.extend(line.trim_ascii());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pem(body: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    #[test]
    fn what_the_image_trusts_is_kept_and_ours_comes_last() {
        let image = format!("# one\r\n{}# two\n{}", pem("AAAA"), pem("BBBB").trim_end());
        let merged = with(image.as_bytes(), &pem("CCCC"), None);
        let expected = format!("{image}\n# matchlock sandbox CA\n{}", pem("CCCC"));
        assert_eq!(String::from_utf8(merged).unwrap(), expected);
        assert_eq!(with(b"", &pem("CCCC"), None), [MARK, pem("CCCC").as_bytes()].concat());
    }

    #[test]
    fn an_earlier_certificate_of_ours_is_replaced_wherever_it_is() {
        let (old, new) = (pem("OLDA"), pem("NEWA"));
        let first = with(pem("AAAA").as_bytes(), &old, None);
        assert_eq!(with(&first, &new, None), with(pem("AAAA").as_bytes(), &new, None));
        // The image's tools have made the bundle again, with our anchor in the middle and no mark.
        let again = format!("{}{old}{}", pem("AAAA"), pem("BBBB"));
        let both = format!("{}{}", pem("AAAA"), pem("BBBB"));
        assert_eq!(with(again.as_bytes(), &new, Some(old.as_bytes())), with(both.as_bytes(), &new, None));
        // The last time the disk was full.
        for end in 0..old.len() {
            let cut = [pem("AAAA").as_bytes(), MARK, &old.as_bytes()[..end]].concat();
            assert_eq!(with(&cut, &new, None), with(pem("AAAA").as_bytes(), &new, None), "{end}");
        }
    }

    #[test]
    fn certificates_are_found_among_whatever_else() {
        let bundle = format!("# text\n{}-----BEGIN X-----\nAAAA\n{}", pem("AAEC\nAwQ="), pem("???"));
        assert_eq!(certificates(bundle.as_bytes()), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(certificates(pem("AAEC").replace('\n', "\r\n").as_bytes()), [vec![0, 1, 2]]);
    }

    proptest! {
        #[test]
        fn any_bundle_is_read_and_to_merge_twice_is_to_merge_once(
            parts in prop::collection::vec(prop::sample::select(vec![
                "# matchlock sandbox CA\n", "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", "AAAA\n", "\n", "x",
            ]), 0..40),
        ) {
            let bundle = parts.concat();
            let once = with(bundle.as_bytes(), &pem("CCCC"), None);
            prop_assert_eq!(&with(&once, &pem("CCCC"), None), &once);
            prop_assert!(once.ends_with(pem("CCCC").as_bytes()));
            certificates(bundle.as_bytes());
        }
    }
}
