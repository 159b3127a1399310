//! `matchlock policy log`.

use std::collections::BTreeSet;

use api::event::{Event, What};
use sandbox::network::log::{Outcome as Came, Summary, events, summarise};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::{output, sandboxes};

/// Show what a sandbox asked for on the network, what was allowed and what was denied.
///
/// Ends with the flags that would have let through what was denied. The newest 4 to 8 MiB of events are
/// kept; a sandbox whose network is open and not looked into has only refusals.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock policy log vm-1a2b3c4d
  matchlock policy log web --denied
  matchlock policy log web --events --json | jq .network.url")]
pub(crate) struct Args {
    /// Only what was denied.
    #[arg(long)]
    denied: bool,
    /// Each event by itself, oldest first, instead of sums.
    #[arg(long)]
    events: bool,
    /// Print JSON: one object, or with --events one a line.
    #[arg(long)]
    json: bool,
    /// ID, the beginning of one, or name.
    #[arg(value_name = "ID")]
    sandbox: String,
}

/// What programs get.
#[derive(Serialize)]
struct Report {
    summary: Vec<Summary>,
    /// Values of `--allow-host` that would have let through what was denied.
    allow_hosts: BTreeSet<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let record = sandboxes::find(&site, &args.sandbox)?;
    let mut events = events(&site.home.directory(record.id))
        .map_err(|error| Failure::io(format!("cannot read the network log of {}", record.id), error))?;
    if args.denied {
        events.retain(|Event { what: What::Network { network }, .. }| network.blocked);
    }
    if args.events {
        return each(&events, args.json);
    }
    let report = Report { summary: summarise(&events), allow_hosts: remedies(&events) };
    if args.json { output::json(&report) } else { show(&report) }
}

/// The hosts that would have to be allowed.
fn remedies(events: &[Event]) -> BTreeSet<String> {
    events.iter().filter_map(|Event { what: What::Network { network }, .. }| network.remedy.clone()).collect()
}

fn show(report: &Report) -> Outcome {
    if report.summary.is_empty() {
        return output::line("Nothing was asked for.");
    }
    let rows = report.summary.iter().map(|sum| {
        let outcome = match sum.outcome {
            Came::Denied => "denied",
            Came::Failed => "failed",
            Came::Allowed => "allowed",
        };
        let host = if sum.port == 0 { sum.host.clone() } else { format!("{}:{}", sum.host, sum.port) };
        let bytes = if sum.outcome == Came::Denied {
            String::new()
        } else {
            format!("{} / {}", output::size(sum.request_bytes), output::size(sum.response_bytes))
        };
        let reason = sum.reason.clone().unwrap_or_default();
        [outcome.to_owned(), sum.count.to_string(), sum.method.clone(), host, bytes, reason]
    });
    let code = output::table(["OUTCOME", "COUNT", "METHOD", "HOST", "OUT / IN", "WHY"], rows)?;
    if code != 0 || report.allow_hosts.is_empty() {
        return Ok(code);
    }
    let flags: Vec<String> =
        report.allow_hosts.iter().map(|host| format!("--allow-host {}", quoted(host))).collect();
    output::line(&format!("\nTo allow what was denied: {}", flags.join(" ")))
}

/// For a shell. The guest has chosen the names, and one that needs quotes is no host.
fn quoted(host: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]/".contains(&byte);
    if host.bytes().all(plain) { host.to_owned() } else { format!("'{}'", host.replace('\'', "")) }
}

fn each(events: &[Event], json: bool) -> Outcome {
    let mut text = String::new();
    for event in events {
        let line =
            if json { serde_json::to_string(event).expect("our own types serialize") } else { shown(event) };
        text.push_str(&line);
        text.push('\n');
    }
    output::bytes(text.as_bytes())
}

/// An event in one line. What the guest has chosen must not steer the terminal.
fn shown(event: &Event) -> String {
    let Event { timestamp, what: What::Network { network } } = event;
    let at = output::rfc3339(i64::try_from(*timestamp).unwrap_or(i64::MAX));
    let came = match (&network.block_reason, &network.error) {
        (Some(reason), _) => format!("denied: {reason}"),
        (None, Some(error)) => format!("failed: {error}"),
        (None, None) if network.status_code != 0 => network.status_code.to_string(),
        (None, None) => "allowed".to_owned(),
    };
    let line = format!("{at} {} {} {came}", network.method, network.url);
    line.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_has_chosen_reaches_neither_shell_nor_terminal() {
        assert_eq!(quoted("*.example.com"), "'*.example.com'");
        assert_eq!(quoted("a';rm -rf /;'"), "'a;rm -rf /;'");
        let network = api::event::NetworkEvent { url: "http://h/\u{1b}[2J".into(), ..Default::default() };
        let line = shown(&Event { timestamp: 0, what: What::Network { network } });
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
}
