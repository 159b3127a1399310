//! Globs of rules: `*` is any text, also none and also with a `/`; `?` is one character. Paths are
//! compared as they are sent and in their normal form, so that `/%61dmin` or `/a/../admin` does not get
//! round a rule for `/admin`.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Box<[u8]>);

impl Pattern {
    pub(crate) fn new(glob: &str) -> Self {
        Self(glob.as_bytes().into())
    }

    /// Whether all of `text` matches. Takes at most as many steps as the product of both lengths.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        let (mut at, mut in_text) = (0, 0);
        // After the last star, and where in the text what it stands for ends at the least.
        let mut star: Option<(usize, usize)> = None;
        while in_text < text.len() {
            match self.0.get(at) {
                Some(b'*') => {
                    at += 1;
                    star = Some((at, in_text));
                }
                Some(&byte) if byte == b'?' || byte == text[in_text] => {
                    at += 1;
                    in_text += 1;
                }
                _ => {
                    let Some((after, end)) = star else { return false };
                    star = Some((after, end + 1));
                    (at, in_text) = (after, end + 1);
                }
            }
        }
        self.0[at..].iter().all(|&byte| byte == b'*')
    }

    /// Whether a path matches, as it is or in its normal form.
    pub(crate) fn matches_path(&self, path: &str) -> bool {
        self.matches(path.as_bytes()) || self.matches(&normal(path))
    }
}

/// A path as most servers understand it: decoded once, without empty segments, `.` and `..`.
fn normal(path: &str) -> Vec<u8> {
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut is_directory = false;
    for segment in decoded.split(|&byte| byte == b'/' || byte == b'\\') {
        is_directory = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let mut normal = Vec::with_capacity(decoded.len() + 1);
    for segment in &segments {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if is_directory || normal.is_empty() {
        normal.push(b'/');
    }
    normal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Pattern, normal};

    #[test]
    fn stars_stand_for_any_text() {
        for (glob, text) in [
            ("*", ""),
            ("*", "a/b"),
            ("a*c", "ac"),
            ("a*c", "abcbc"),
            ("*.example.com", "a.b.example.com"),
            ("/v1/*", "/v1/a/b"),
            ("a?c", "abc"),
            ("**a**", "a"),
            ("", ""),
        ] {
            assert!(Pattern::new(glob).matches(text.as_bytes()), "{glob} {text}");
        }
        for (glob, text) in [
            ("", "a"),
            ("a*c", "abcd"),
            ("*.example.com", "example.com"),
            ("*.example.com", "a.example.com.evil.org"),
            ("a?c", "ac"),
        ] {
            assert!(!Pattern::new(glob).matches(text.as_bytes()), "{glob} {text}");
        }
    }

    #[test]
    fn another_spelling_of_a_path_does_not_get_round_a_rule() {
        let rule = Pattern::new("/admin*");
        for path in [
            "/admin",
            "/%61dmin",
            "//admin",
            "/./admin/x",
            "/public/../admin",
            "/public/%2e%2e/admin",
            "/public/..%2Fadmin",
            "/public\\..\\admin",
        ] {
            assert!(rule.matches_path(path), "{path}");
        }
        assert!(!rule.matches_path("/public/admin"));
    }

    #[test]
    fn a_normal_path_keeps_its_last_slash() {
        for (path, expected) in
            [("/a/", "/a/"), ("/a/b/..", "/a/"), ("/", "/"), ("/..", "/"), ("/a//b", "/a/b")]
        {
            assert_eq!(normal(path), expected.as_bytes(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_glob_made_of_a_text_matches_it(text in "[a-c/]{0,12}", from in 0usize..12, to in 0usize..12) {
            let (from, to) = (from.min(text.len()), to.min(text.len()));
            let (from, to) = (from.min(to), from.max(to));
            let glob = format!("{}*{}", &text[..from], &text[to..]);
            prop_assert!(Pattern::new(&glob).matches(text.as_bytes()));
        }

        #[test]
        fn what_is_normal_stays_as_it_is(path in "/[a-c./]{0,16}") {
            let once = normal(&path);
            prop_assert_eq!(normal(std::str::from_utf8(&once).unwrap()), once);
        }
    }
}
