//! The flags that say what a sandbox may reach and which secrets it may use, and what they mean. That
//! a secret's value is in `NAME=VALUE@HOSTS` for everybody who can list processes is the user's
//! choice; `NAME@HOSTS` and files do not have that.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use api::hook::Interception;
use api::network::{NetworkSpec, SecretSpec};
use policy::secret::{self, SecretValue};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::host;
use crate::hosts::added_host;

/// What may be reached.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct ReachArgs {
    /// A host that may be reached: a name, *.example.com, HOST:PORT, an address or a block of them.
    /// With any of these, or any secret, nothing else can be reached.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(crate) allow_host: Vec<String>,
    /// A host that may be reached and whose TLS connections are not looked into: for clients that pin
    /// its certificate. No secret goes there.
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(crate) passthrough_host: Vec<String>,
    /// Look into the connections of an open network: requests are logged, and hosts can be added that
    /// seal it.
    #[arg(long)]
    pub(crate) network_intercept: bool,
    /// Add a name: NAME:ADDRESS. That address may be reached by that name, even if it is a private one.
    #[arg(long, value_name = "NAME:ADDRESS", value_delimiter = ',', value_parser = added_host)]
    pub(crate) add_host: Vec<(IpAddr, String)>,
    /// A secret for the hosts that are named, read from the environment here, or given. The sandbox has
    /// only a placeholder in its variable NAME; the value takes its place in headers and queries of
    /// requests to those hosts. http://HOST allows it without TLS.
    #[arg(long, value_name = "NAME[=VALUE]@HOST,…")]
    pub(crate) secret: Vec<String>,
    /// Secrets from a JSON file: {"NAME": {"value": …, "hosts": […], "placeholder": …}}.
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Vec<PathBuf>,
    /// The placeholder of a secret, instead of one made at random.
    #[arg(long, value_name = "NAME=TEXT")]
    pub(crate) secret_placeholder: Vec<String>,
    /// Rules for requests and responses from a JSON file: {"rules": […], "callback_socket": …}.
    #[arg(long, value_name = "FILE")]
    pub(crate) network_rules: Option<PathBuf>,
}

/// The values of secrets, by their names.
pub(crate) type Values = BTreeMap<String, SecretValue>;

impl ReachArgs {
    /// What they ask for. A secret without a value gets it from `find`.
    pub(crate) fn meaning(
        &self,
        find: impl Fn(&str) -> Result<Zeroizing<String>, Failure>,
    ) -> Result<(NetworkSpec, Values), Failure> {
        let mut secrets = BTreeMap::new();
        for file in &self.secret_file {
            secrets.extend(read_secrets(file)?);
        }
        for text in &self.secret {
            let (name, secret) = inline_secret(text)?;
            secrets.insert(name, secret);
        }
        for text in &self.secret_placeholder {
            let (name, placeholder) =
                text.split_once('=').ok_or_else(|| Failure::usage("--secret-placeholder is NAME=TEXT"))?;
            let secret = secrets.get_mut(name).ok_or_else(|| {
                Failure::usage(format!("--secret-placeholder {name}: there is no such secret"))
            })?;
            secret.placeholder = Some(placeholder.to_owned());
        }
        let mut spec = NetworkSpec {
            intercept: self.network_intercept,
            allowed_hosts: self.allow_host.clone(),
            passthrough_hosts: self.passthrough_host.clone(),
            ..NetworkSpec::default()
        };
        if let Some(file) = &self.network_rules {
            let Interception { rules, callback_socket } = read_json(file, "--network-rules")?;
            spec.rules = rules;
            spec.callback_socket = callback_socket.as_deref().map(host::absolute).transpose()?;
        }
        let mut values = BTreeMap::new();
        for (name, secret) in secrets {
            let value = secret.value.map_or_else(|| find(&name), Ok)?;
            values.insert(name.clone(), value_of(&name, &value)?);
            let placeholder = secret.placeholder.map_or_else(random_placeholder, Ok)?;
            spec.secrets.insert(name, SecretSpec { placeholder, hosts: secret.hosts, mask: true });
        }
        Ok((spec, values))
    }
}

/// The value of a secret from this process's environment.
pub(crate) fn from_environment(name: &str) -> Result<Zeroizing<String>, Failure> {
    std::env::var(name).map(Zeroizing::new).map_err(|_| {
        Failure::usage(format!(
            "secret {name} has no value: the environment here has no variable of that name; \
             set it, or use --secret-file"
        ))
    })
}

/// The values of the secrets that a stored specification names: as they were given, or from the
/// environment.
pub(crate) fn values(spec: &NetworkSpec, given: &Values) -> Result<Values, Failure> {
    let value = |name: &String| match given.get(name) {
        Some(value) => Ok(value.clone()),
        None => value_of(name, &from_environment(name)?),
    };
    spec.secrets.keys().map(|name| Ok((name.clone(), value(name)?))).collect()
}

/// The values in files of secrets.
pub(crate) fn values_in_files(files: &[PathBuf]) -> Result<Values, Failure> {
    let mut values = Values::new();
    for file in files {
        for (name, secret) in read_secrets(file)? {
            if let Some(value) = secret.value {
                values.insert(name.clone(), value_of(&name, &value)?);
            }
        }
    }
    Ok(values)
}

fn value_of(name: &str, value: &str) -> Result<SecretValue, Failure> {
    SecretValue::new(value.to_owned()).map_err(|error| Failure::usage(format!("secret {name}: {error}")))
}

fn random_placeholder() -> Result<String, Failure> {
    let random = sandbox::random::random()
        .map_err(|error| Failure::io("cannot get random bytes from the kernel", error))?;
    Ok(secret::placeholder(random))
}

/// A secret as it is typed.
#[derive(Deserialize)]
struct Typed {
    value: Option<Zeroizing<String>>,
    placeholder: Option<String>,
    hosts: Vec<String>,
}

/// `NAME=VALUE@HOST,…` or `NAME@HOST,…`. A value may contain `=` and `@`; a host cannot.
fn inline_secret(text: &str) -> Result<(String, Typed), Failure> {
    // The text itself is not repeated in the error: it may hold the value.
    let wrong =
        |why: &str| Failure::usage(format!("invalid --secret: {why} (NAME=VALUE@HOST,… or NAME@HOST,…)"));
    let (secret, hosts) = text.rsplit_once('@').ok_or_else(|| wrong("it names no hosts"))?;
    let (name, value) = match secret.split_once('=') {
        Some((name, value)) => (name, Some(Zeroizing::new(value.to_owned()))),
        None => (secret, None),
    };
    let hosts: Vec<String> = hosts.split(',').map(|host| host.trim().to_owned()).collect();
    if hosts.iter().any(String::is_empty) {
        return Err(wrong("a host is empty"));
    }
    Ok((
        variable(name).ok_or_else(|| wrong("the name is no name of a variable"))?,
        Typed { value, placeholder: None, hosts },
    ))
}

/// A name that shells can use.
fn variable(name: &str) -> Option<String> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let fits = !name.is_empty() && name.bytes().all(valid) && !name.as_bytes()[0].is_ascii_digit();
    fits.then(|| name.to_owned())
}

fn read_secrets(file: &Path) -> Result<BTreeMap<String, Typed>, Failure> {
    let secrets: BTreeMap<String, Typed> = read_json(file, "--secret-file")?;
    match secrets.keys().find(|name| variable(name).is_none()) {
        Some(name) => Err(Failure::usage(format!(
            "--secret-file {}: {name:?} is no name of a variable",
            file.display()
        ))),
        None => Ok(secrets),
    }
}

/// Reads a file of ours, in which an unknown key is a mistake. Of its contents nothing is repeated but a word where
/// only some are known.
fn read_json<T: serde::de::DeserializeOwned>(file: &Path, flag: &str) -> Result<T, Failure> {
    let shown = format!("{flag} {}", file.display());
    let text = std::fs::read_to_string(file)
        .map(Zeroizing::new)
        .map_err(|error| Failure::io(format!("cannot read {shown}"), error))?;
    let mut unknown = None;
    let mut json = serde_json::Deserializer::from_str(&text);
    let value = serde_ignored::deserialize(&mut json, |path| _ = unknown.get_or_insert(path.to_string()));
    let value = value.and_then(|value| json.end().map(|()| value));
    let value = value.map_err(|error| {
        let (line, column, why) = (error.line(), error.column(), error.to_string());
        Failure::usage(if why.starts_with("unknown variant") || why.starts_with("missing field") {
            format!("{shown}: {why}")
        } else {
            format!("{shown} is not what it must be, at line {line}, column {column}")
        })
    })?;
    match unknown {
        Some(path) => Err(Failure::usage(format!("{shown}: unknown key {path}"))),
        None => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_contain_what_separates() {
        let (name, secret) = inline_secret("KEY=a=b@c@api.example.com,*.example.org").unwrap();
        assert_eq!((name.as_str(), secret.value.unwrap().as_str()), ("KEY", "a=b@c"));
        assert_eq!(secret.hosts, ["api.example.com", "*.example.org"]);
        let (name, secret) = inline_secret("KEY@api.example.com").unwrap();
        assert_eq!((name.as_str(), secret.value), ("KEY", None));
    }

    #[test]
    fn a_wrong_secret_is_refused_without_repeating_it() {
        for wrong in
            ["KEY=hunter2", "=hunter2@h", "K Y=hunter2@h", "1K=hunter2@h", "KEY=hunter2@", "KEY=hunter2@a,,b"]
        {
            let failure = inline_secret(wrong).map(|(name, _)| name).unwrap_err();
            assert!(!failure.with_causes().contains("hunter2"), "{wrong}");
        }
    }

    #[test]
    fn files_are_read_strictly_and_not_repeated() {
        let file = std::env::temp_dir().join(format!("matchlock-secrets-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_secrets(&file).map_err(|failure| failure.with_causes())
        };
        assert!(read(r#"{"KEY": {"value": "v", "hosts": ["h"]}}"#).unwrap().contains_key("KEY"));
        let misspelt = read(r#"{"KEY": {"valu": "hunter2", "hosts": ["h"]}}"#).map(drop).unwrap_err();
        assert!(misspelt.contains("KEY.valu") && !misspelt.contains("hunter2"), "{misspelt}");
        let nonsense = read(r#"{"KEY": "hunter2"}"#).map(drop).unwrap_err();
        assert!(!nonsense.contains("hunter2"), "{nonsense}");
        std::fs::remove_file(&file).unwrap();
    }
}
