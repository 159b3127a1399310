//! From an image's configuration and what the user typed to the command that runs; Docker's
//! semantics. Pure.

use api::image::ImageConfig;
use api::spec::CommandSpec;
use api::{Explain, Kind};
use proto::agent::{Exec, Stdio, WorkingDir};
use thiserror::Error;

/// There is nothing to run, or it cannot be passed on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    /// Neither the user nor the image names a command.
    #[error("no command: the image has no ENTRYPOINT or CMD, and none was given")]
    Nothing,
    /// A further command must be named.
    #[error("no command to execute")]
    NothingToExec,
    /// Linux's arguments and environment cannot hold a NUL byte.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which part.
        what: &'static str,
    },
    /// A working directory must be absolute.
    #[error("working directory {0:?} is not absolute")]
    RelativeWorkingDir(String),
}

impl Explain for CommandError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing => Some("name one after the image: matchlock run --image IMAGE -- COMMAND".into()),
            Self::NothingToExec => Some("name one: matchlock exec ID -- COMMAND".into()),
            Self::Nul { .. } | Self::RelativeWorkingDir(_) => None,
        }
    }
}

/// The command that `spec` means for an image of this configuration. Its `id` is zero; the agent
/// client numbers it.
///
/// # Errors
/// See [`CommandError`].
pub fn resolve(image: &ImageConfig, spec: &CommandSpec, stdio: Stdio) -> Result<Exec, CommandError> {
    exec(image, spec, argv(image, spec)?, stdio)
}

/// The further command that `spec` means in a sandbox that was made for the command `first`:
/// without the image's entrypoint, and with the environment, the user, the working directory and
/// the privileges of the first unless it has its own. A working directory of its own is not made.
///
/// # Errors
/// See [`CommandError`].
pub fn inherit(
    image: &ImageConfig,
    first: &CommandSpec,
    spec: &CommandSpec,
    stdio: Stdio,
) -> Result<Exec, CommandError> {
    if spec.args.first().is_none_or(String::is_empty) {
        return Err(CommandError::NothingToExec);
    }
    let own_directory = spec.working_dir.is_some();
    let whole = CommandSpec {
        entrypoint: None,
        args: Vec::new(),
        env: first.env.iter().chain(&spec.env).cloned().collect(),
        working_dir: spec.working_dir.clone().or_else(|| first.working_dir.clone()),
        user: spec.user.clone().or_else(|| first.user.clone()),
        privileged: first.privileged || spec.privileged,
    };
    let mut exec = exec(image, &whole, spec.args.clone(), stdio)?;
    if let Some(directory) = &mut exec.working_dir {
        directory.create = !own_directory;
    }
    Ok(exec)
}

fn exec(
    image: &ImageConfig,
    spec: &CommandSpec,
    argv: Vec<String>,
    stdio: Stdio,
) -> Result<Exec, CommandError> {
    let env = environment(image, spec);
    let strings = argv.iter().map(|word| ("the command", word));
    let pairs = env.iter().flat_map(|(name, value)| [name, value]).map(|text| ("the environment", text));
    if let Some((what, _)) = strings.chain(pairs).find(|(_, text)| text.contains('\0')) {
        return Err(CommandError::Nul { what });
    }
    let user = spec.user.clone().or_else(|| non_empty(&image.user));
    Ok(Exec {
        id: 0,
        argv: argv.into_iter().map(String::into_bytes).collect(),
        env: env.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect(),
        working_dir: working_dir(image, spec)?,
        user,
        stdio,
        privileged: spec.privileged,
    })
}

/// ENTRYPOINT, then the arguments or else CMD; an entrypoint of the user's drops the image's CMD.
fn argv(image: &ImageConfig, spec: &CommandSpec) -> Result<Vec<String>, CommandError> {
    let (mut argv, default_args) = match &spec.entrypoint {
        None => (image.entrypoint.clone(), image.cmd.as_slice()),
        Some(entrypoint) => (non_empty(entrypoint).into_iter().collect(), [].as_slice()),
    };
    argv.extend_from_slice(if spec.args.is_empty() { default_args } else { &spec.args });
    if argv.first().is_none_or(String::is_empty) {
        return Err(CommandError::Nothing);
    }
    Ok(argv)
}

/// The image's environment in its order, each name once, overridden and followed by the user's.
fn environment(image: &ImageConfig, spec: &CommandSpec) -> Vec<(String, String)> {
    let image = image.env.iter().filter_map(|pair| pair.split_once('='));
    let user = spec.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in image.chain(user) {
        match env.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => env.push((name.to_owned(), value.to_owned())),
        }
    }
    env
}

/// A directory that the image or the user names for the sandbox is made if it is missing, as
/// Docker does for `WORKDIR` and `run -w`.
fn working_dir(image: &ImageConfig, spec: &CommandSpec) -> Result<Option<WorkingDir>, CommandError> {
    let Some(path) = spec.working_dir.clone().or_else(|| non_empty(&image.working_dir)) else {
        return Ok(None);
    };
    if !path.starts_with('/') {
        return Err(CommandError::RelativeWorkingDir(path));
    }
    if path.contains('\0') {
        return Err(CommandError::Nul { what: "the working directory" });
    }
    Ok(Some(WorkingDir { path: path.into_bytes(), create: true }))
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPES: Stdio = Stdio::Pipes { stdin: false };

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn image() -> ImageConfig {
        ImageConfig { entrypoint: words("/entry -x"), cmd: words("default args"), ..ImageConfig::default() }
    }

    fn run(image: &ImageConfig, entrypoint: Option<&str>, args: &str) -> Result<String, CommandError> {
        let spec = CommandSpec {
            entrypoint: entrypoint.map(str::to_owned),
            args: words(args),
            ..CommandSpec::default()
        };
        let exec = resolve(image, &spec, PIPES)?;
        Ok(exec.argv.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn entrypoint_and_cmd_combine_as_in_docker() {
        let cases = [
            (image(), None, "", "/entry -x default args"),
            (image(), None, "mine", "/entry -x mine"),
            (image(), Some("/other"), "", "/other"),
            (image(), Some("/other"), "mine", "/other mine"),
            (image(), Some(""), "mine", "mine"),
            (ImageConfig { entrypoint: Vec::new(), ..image() }, None, "", "default args"),
        ];
        for (image, entrypoint, args, expected) in cases {
            assert_eq!(run(&image, entrypoint, args).as_deref(), Ok(expected));
        }
        assert_eq!(run(&image(), Some(""), ""), Err(CommandError::Nothing));
        assert_eq!(run(&ImageConfig::default(), None, ""), Err(CommandError::Nothing));
    }

    #[test]
    fn environment_is_the_images_overridden_by_the_users() {
        let image = ImageConfig { env: words("A=1 B=2 nonsense A=3"), ..image() };
        let env = [("B".to_owned(), "x=y".to_owned()), ("C".to_owned(), String::new())];
        let spec = CommandSpec { env: env.to_vec(), ..CommandSpec::default() };
        let exec = resolve(&image, &spec, PIPES).unwrap();
        let shown: Vec<_> = exec
            .env
            .iter()
            .map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v)))
            .collect();
        assert_eq!(shown, ["A=3", "B=x=y", "C="]);
    }

    #[test]
    fn nul_bytes_and_relative_directories_are_refused() {
        let with = |args: &str, working_dir: Option<&str>| {
            let spec = CommandSpec {
                args: vec![args.to_owned()],
                working_dir: working_dir.map(str::to_owned),
                ..CommandSpec::default()
            };
            resolve(&image(), &spec, PIPES).map(drop)
        };
        assert_eq!(with("a\0b", None), Err(CommandError::Nul { what: "the command" }));
        assert_eq!(with("a", Some("b")), Err(CommandError::RelativeWorkingDir("b".into())));
        assert_eq!(with("a", Some("/b\0")), Err(CommandError::Nul { what: "the working directory" }));
        assert_eq!(with("a", Some("/b")), Ok(()));
    }
}
