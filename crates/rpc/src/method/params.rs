//! The parameters that the `exec` methods share. Pure.

use api::rpc::{ExecParams, Failure};
use api::spec::CommandSpec;

/// The command that these parameters mean.
pub(super) fn command(params: ExecParams) -> Result<CommandSpec, Failure> {
    let args = match (params.command, params.argv) {
        (Some(line), None) => vec!["sh".to_owned(), "-c".to_owned(), line],
        (None, Some(argv)) if argv.first().is_some_and(|program| !program.is_empty()) => argv,
        (None, Some(_)) => return Err(Failure::invalid_params("argv names no program")),
        (Some(_), Some(_)) => return Err(Failure::invalid_params("command and argv exclude each other")),
        (None, None) => return Err(Failure::invalid_params("command or argv is missing")),
    };
    Ok(CommandSpec {
        // None, not the image's.
        entrypoint: Some(String::new()),
        args,
        env: params.env.unwrap_or_default().into_iter().collect(),
        working_dir: params.working_dir,
        user: params.user,
        privileged: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(params: ExecParams) -> Result<Vec<String>, String> {
        command(params).map(|command| command.args).map_err(|failure| failure.message)
    }

    #[test]
    fn a_line_is_for_the_shell_and_words_are_for_nobody() {
        let line = |line: &str| ExecParams { command: Some(line.into()), ..ExecParams::default() };
        let argv = |words: &[&str]| ExecParams {
            argv: Some(words.iter().map(|word| (*word).to_owned()).collect()),
            ..ExecParams::default()
        };
        assert_eq!(words(line("a 'b c'")).unwrap(), ["sh", "-c", "a 'b c'"]);
        assert_eq!(words(argv(&["a", "'b c'"])).unwrap(), ["a", "'b c'"]);
        assert!(words(argv(&[])).is_err());
        assert!(words(argv(&[""])).is_err());
        assert!(words(ExecParams::default()).is_err());
        assert!(words(ExecParams { command: Some("a".into()), ..argv(&["a"]) }).is_err());
    }
}
