//! `matchlock policy check`: the same decisions as for a request from a sandbox, without one.

use policy::denial::Denial;
use policy::request::{Context, Exchange, Verdict};
use policy::{Host, Mode, Policy};
use serde::Serialize;
use zeroize::Zeroizing;

use super::url::Url;
use crate::failure::{Failure, Outcome};
use crate::network::ReachArgs;
use crate::output;

/// Say what would happen to a request from a sandbox, and why, without a VM.
///
/// Nothing is resolved or connected to: a name that turns out to have only private addresses would be
/// refused all the same. Values of secrets are not needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock policy check --allow-host '*.example.com' https://api.example.com/v1
  matchlock policy check --secret KEY@api.example.com -H 'Authorization: Bearer PLACEHOLDER' \\
      --secret-placeholder KEY=PLACEHOLDER http://api.example.com/
  matchlock policy check --allow-host db.example.com:5432 tcp://db.example.com:5432

Exit code: 0 if it would be let through, 1 if not, 2 wrong usage.")]
pub(crate) struct Args {
    #[command(flatten)]
    reach: ReachArgs,
    /// Method of the request.
    #[arg(short = 'X', long, default_value = "GET")]
    request: String,
    /// A header of the request.
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    /// https://…, http://…, or tcp://HOST:PORT for what is neither.
    url: Url,
}

/// Exit code for what would be refused.
const DENIED: u8 = 1;

/// What would happen.
#[derive(Debug, Serialize)]
struct Answer {
    url: String,
    allowed: bool,
    network: &'static str,
    /// The entry or rule that decided.
    rule: Option<String>,
    /// Why not, for programs.
    reason: Option<&'static str>,
    /// Why not.
    message: Option<String>,
    hint: Option<String>,
    /// What else would happen.
    notes: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    // What stands for a value is never sent anywhere.
    let meaning = args.reach.meaning(|_| Ok(Zeroizing::new("value".to_owned())));
    // Its other exit code says something of the request.
    let (spec, values) = meaning.map_err(Failure::of_usage)?;
    let policy = Policy::compile(&spec, &args.reach.add_host, values);
    let policy = policy.map_err(|error| Failure::from(error).of_usage())?;
    let answer = decide(&policy, args)?;
    if args.json {
        output::json(&answer)?;
    } else {
        output::line(&shown(&answer))?;
    }
    Ok(if answer.allowed { 0 } else { DENIED })
}

fn decide(policy: &Policy, args: &Args) -> Result<Answer, Failure> {
    let Url { https, ref host, port, .. } = args.url;
    let mode = policy.mode();
    let mut answer = Answer {
        url: args.url.to_string(),
        allowed: true,
        network: match mode {
            Mode::Open => "open",
            Mode::Observed => "observed",
            Mode::Sealed => "sealed",
        },
        rule: None,
        reason: None,
        message: None,
        hint: None,
        notes: Vec::new(),
    };
    let permit = match policy.host(host, port) {
        Ok(permit) => permit,
        Err(denial) => return Ok(answer.denied(&denial)),
    };
    answer.rule = Some(permit.rule().to_owned());
    match (host, https) {
        (_, None) => answer.notes.push("passes as it is if it is neither TLS nor HTTP".to_owned()),
        _ if mode == Mode::Open => answer.notes.push("passes as it is: the network is open".to_owned()),
        (Host::Name(name), Some(true)) if policy.passthrough(name, port) => {
            answer.notes.push("TLS passes as it is, without secrets and rules".to_owned());
        }
        (_, Some(https)) => return request(policy, args, https, answer),
    }
    Ok(answer)
}

/// What would become of a request that is looked into.
fn request(policy: &Policy, args: &Args, https: bool, mut answer: Answer) -> Result<Answer, Failure> {
    let Url { host, port, .. } = &args.url;
    let context = Context { https: https.then(|| host.clone()), port: *port };
    let parts = args.url.request(&args.request, &args.header)?;
    match Exchange::begin(policy, parts, &context) {
        Verdict::Deny(denial) => return Ok(answer.denied(&denial)),
        Verdict::Ask(question) => {
            let id = &question.request().callback_id;
            answer.notes.push(format!("the client is asked about it, as {id}, and may refuse or change it"));
        }
        Verdict::Forward(cleared) if cleared.has_values() => {
            answer.notes.push("values of secrets take the place of their placeholders".to_owned());
        }
        Verdict::Forward(_) => {}
    }
    Ok(answer)
}

impl Answer {
    fn denied(self, denial: &Denial) -> Self {
        Self {
            allowed: false,
            rule: denial.rule.clone(),
            reason: Some(denial.reason.code()),
            message: Some(denial.message()),
            hint: denial.hint(),
            ..self
        }
    }
}

fn shown(answer: &Answer) -> String {
    let Answer { url, allowed, network, rule, reason, message, hint, notes } = answer;
    let mut lines = vec![format!("{}  {url}", if *allowed { "allowed" } else { "denied " })];
    let mut line = |name: &str, text: &str| lines.push(format!("  {name:<9}{text}"));
    line("network", network);
    if let (Some(reason), Some(message)) = (reason, message) {
        line("reason", &format!("{message} ({reason})"));
    }
    if let Some(rule) = rule {
        line("rule", rule);
    }
    notes.iter().for_each(|note| line("note", note));
    if let Some(hint) = hint {
        line("hint", hint);
    }
    lines.join("\n")
}
