//! Paths of entries: relative to the root of the image whatever they look like, and never out of
//! it. What a whiteout's name means is decided here too. Both fail closed.

use super::Limits;
use super::error::PathProblem;
use crate::erofs;

/// Names with this prefix stand for the deletion of what follows it (OCI image specification,
/// "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";

/// Names with this prefix were a union file system's own.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// Stands for the deletion of everything that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The components of a path below the root; none are the root itself.
pub(super) type Components<'a> = Vec<&'a [u8]>;

/// What the last component of a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// The entry itself.
    Entry,
    /// To hide this name of lower layers.
    Whiteout(&'a [u8]),
    /// To hide all names of lower layers in this directory.
    Opaque,
    /// Nothing.
    Nothing,
}

/// Splits a path into its components: as Docker does, `/` at its start and `.` anywhere say
/// nothing; but `..` is refused.
pub(super) fn parse<'a>(path: &'a [u8], limits: &Limits) -> Result<Components<'a>, PathProblem> {
    if path.is_empty() {
        return Err(PathProblem::Empty);
    }
    if path.len() > limits.path_bytes {
        return Err(PathProblem::TooLong(limits.path_bytes));
    }
    if path.contains(&0) {
        return Err(PathProblem::Nul);
    }
    let mut components = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(PathProblem::Upwards),
            _ if name.len() > erofs::NAME_MAX => return Err(PathProblem::NameTooLong),
            _ if components.len() == limits.depth => return Err(PathProblem::TooDeep(limits.depth)),
            _ => components.push(name),
        }
    }
    Ok(components)
}

/// What a path asks for, by its names.
pub(super) fn request<'a>(components: &[&'a [u8]]) -> Result<Request<'a>, PathProblem> {
    let Some((last, parents)) = components.split_last() else { return Ok(Request::Entry) };
    let meta = |name: &&[u8]| name.starts_with(WHITEOUT_META);
    if parents.iter().any(meta) || meta(last) && *last != OPAQUE {
        return Ok(Request::Nothing);
    }
    if parents.iter().any(|name| name.starts_with(WHITEOUT)) {
        return Err(PathProblem::Whiteout);
    }
    if *last == OPAQUE {
        return Ok(Request::Opaque);
    }
    match last.strip_prefix(WHITEOUT) {
        None => Ok(Request::Entry),
        Some(b"" | b"." | b"..") => Err(PathProblem::Whiteout),
        Some(name) => Ok(Request::Whiteout(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_nowhere_but_below_the_root() {
        let parse = |path: &'static str| parse(path.as_bytes(), &Limits::default());
        for same in ["usr/bin", "/usr/bin", "./usr/bin/", "//usr/././bin//"] {
            assert_eq!(parse(same), Ok(vec![&b"usr"[..], b"bin"]), "{same}");
        }
        for root in ["/", ".", "./", "//"] {
            assert_eq!(parse(root), Ok(vec![]), "{root}");
        }
        for upwards in ["..", "../etc/passwd", "a/../../b", "/..", "a/.."] {
            assert_eq!(parse(upwards), Err(PathProblem::Upwards), "{upwards}");
        }
        assert_eq!(parse(""), Err(PathProblem::Empty));
        assert_eq!(parse("a\0b"), Err(PathProblem::Nul));
    }

    #[test]
    fn paths_too_long_or_too_deep_are_refused() {
        let limits = Limits { path_bytes: 600, depth: 3, ..Limits::default() };
        assert!(parse(&[b'n'; 255], &limits).is_ok());
        assert_eq!(parse(&[b'n'; 256], &limits), Err(PathProblem::NameTooLong));
        assert_eq!(parse(&[b'/'; 601], &limits), Err(PathProblem::TooLong(600)));
        assert_eq!(parse(b"a/b/c/d", &limits), Err(PathProblem::TooDeep(3)));
    }

    #[test]
    fn whiteouts_are_told_by_their_names() {
        let request = |names: &[&'static str]| {
            let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            request(&names)
        };
        assert_eq!(request(&[]), Ok(Request::Entry));
        assert_eq!(request(&["a", ".whale"]), Ok(Request::Entry));
        assert_eq!(request(&["a", ".wh.b"]), Ok(Request::Whiteout(b"b")));
        assert_eq!(request(&["a", ".wh..wh..opq"]), Ok(Request::Opaque));
        assert_eq!(request(&[".wh..wh.plnk"]), Ok(Request::Nothing));
        assert_eq!(request(&[".wh..wh.plnk", "77.12"]), Ok(Request::Nothing));
        for wrong in [&[".wh."][..], &[".wh.."], &[".wh..."], &[".wh.a", "b"]] {
            assert_eq!(request(wrong), Err(PathProblem::Whiteout), "{wrong:?}");
        }
    }
}
