//! Environment variables for a command, as they are typed: `NAME=VALUE`, or `NAME` for the value
//! it has here; in files, one a line, with `#` comments.

use std::path::PathBuf;

use crate::failure::Failure;

/// All variables of the files, in order, then of the flags.
pub(crate) fn collect(files: &[PathBuf], flags: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let mut variables = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::io(format!("cannot read --env-file {}", file.display()), error))?;
        for line in
            text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            variables.push(variable(line)?);
        }
    }
    for flag in flags {
        variables.push(variable(flag)?);
    }
    Ok(variables)
}

fn variable(text: &str) -> Result<(String, String), Failure> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, std::env::var(text).ok()),
    };
    match value {
        Some(value) if is_name(name) => Ok((name.to_owned(), value)),
        Some(_) => Err(Failure::usage(format!("invalid environment variable name {name:?}"))),
        None => Err(Failure::usage(format!("invalid environment variable: {name} has no value here"))),
    }
}

/// Any name that the kernel can pass on; shells allow fewer.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_follow_files_and_values_keep_their_equals_signs() {
        let file = std::env::temp_dir().join(format!("matchlock-env-{}", std::process::id()));
        std::fs::write(&file, "# comment\n\nA=1\n  B=x # y\nPATH\n").unwrap();
        let variables = collect(std::slice::from_ref(&file), &["C=a=b".into(), "D=".into()]).unwrap();
        std::fs::remove_file(&file).unwrap();
        let path = std::env::var("PATH").unwrap();
        let expected = [("A", "1"), ("B", "x # y"), ("PATH", &path), ("C", "a=b"), ("D", "")];
        assert_eq!(variables, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in ["=x", "MATCHLOCK_TEST_NOT_SET_ANYWHERE", "A B=1", ""] {
            assert!(variable(wrong).is_err(), "{wrong:?}");
        }
    }
}
