//! A command's environment: what was asked for, and what every container finds besides.

use std::ffi::{CString, NulError};

/// Where programs are searched when the environment does not say it.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a terminal is when the environment does not say it: the type that every system knows.
const TERM: &[u8] = b"xterm";

/// The environment of one command.
#[derive(Debug)]
pub(super) struct Environment(Vec<(Vec<u8>, Vec<u8>)>);

impl Environment {
    /// `asked` with the missing defaults.
    pub(super) fn new(asked: &[(Vec<u8>, Vec<u8>)], home: &[u8], host_name: &[u8], terminal: bool) -> Self {
        let mut all = asked.to_vec();
        let term = terminal.then_some((&b"TERM"[..], TERM));
        let defaults = [(&b"PATH"[..], PATH), (b"HOSTNAME", host_name), (b"HOME", home)];
        for (name, value) in defaults.into_iter().chain(term) {
            if !asked.iter().any(|(asked, _)| asked == name) {
                all.push((name.to_vec(), value.to_vec()));
            }
        }
        Self(all)
    }

    /// Where programs are searched.
    pub(super) fn path(&self) -> &[u8] {
        // As getenv(3) finds it: the first one.
        self.0.iter().find(|(name, _)| name == b"PATH").map_or(PATH, |(_, value)| value)
    }

    /// As `execve(2)` takes it.
    pub(super) fn strings(&self) -> Result<Vec<CString>, NulError> {
        self.0.iter().map(|(name, value)| CString::new([name, &b"="[..], value].concat())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(asked: &[(&[u8], &[u8])], terminal: bool) -> Vec<String> {
        let asked: Vec<_> = asked.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let strings = Environment::new(&asked, b"/root", b"box", terminal).strings().unwrap();
        strings.into_iter().map(|string| string.into_string().unwrap()).collect()
    }

    #[test]
    fn only_what_is_missing_is_added() {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        assert_eq!(text(&[(b"A", b"1")], false), ["A=1", path, "HOSTNAME=box", "HOME=/root"]);
        assert_eq!(
            text(&[(b"PATH", b"/x"), (b"HOME", b""), (b"TERM", b"vt100"), (b"HOSTNAME", b"y")], true),
            ["PATH=/x", "HOME=", "TERM=vt100", "HOSTNAME=y"]
        );
        assert_eq!(text(&[(b"PATH", b"/x")], true).last().unwrap(), "TERM=xterm");
    }

    #[test]
    fn a_nul_byte_is_refused_not_cut_off() {
        assert!(Environment::new(&[(b"A".to_vec(), b"a\0b".to_vec())], b"/", b"", false).strings().is_err());
    }
}
