//! The hooks of a sandbox on its requests and responses, compiled: which they are for, and what they do.
//! What they do to one exchange is in `request` and `response`.
//!
//! A rule that we could not carry out as it is written is an error when the sandbox is made, never
//! something that is left out later.

mod edit;
mod pattern;

use std::sync::Arc;
use std::time::Duration;

use api::network::{Action, Phase, RuleSpec};
use api::{Explain, Kind};
use http::Method;
use thiserror::Error;

use crate::body::Replacer;
use crate::entry::{Entry, InvalidEntry};
use crate::host::Host;

pub(crate) use edit::{RequestEdit, ResponseEdit, is_request_framing, is_response_framing, is_valid_path};
use pattern::Pattern;

/// How long a client may take to answer a callback unless its rule says otherwise: a request must not
/// wait for ever for a client that hangs.
const CALLBACK_TIMEOUT: Duration = Duration::from_secs(5);

/// A rule makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the network rule {rule} {problem}")]
pub struct RuleError {
    /// What the rule is called, or where it stands.
    pub rule: String,
    /// What is wrong with it.
    pub problem: RuleProblem,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleProblem {
    /// It has a callback, and there is nobody to call.
    #[error("has a callback, but there is no callback socket")]
    NoCallbackSocket,
    /// A host that cannot be parsed.
    #[error("is for an odd host: {}", api::error::with_causes(.0))]
    Host(InvalidEntry),
    /// An identifier or method that is empty.
    #[error("has an empty {0}")]
    Empty(&'static str),
    /// A change that is made in the other phase only.
    #[error("has {field}, which is not of its phase")]
    WrongPhase {
        /// The field.
        field: &'static str,
    },
    /// A header that says where a message goes or where it ends.
    #[error("changes the header {0}, which is not its to change")]
    Framing(String),
    /// Not the name of a header.
    #[error("has {0:?}, which is no name of a header")]
    HeaderName(String),
    /// The value of this header cannot be sent.
    #[error("has a value for the header {0} that cannot be sent")]
    HeaderValue(String),
    /// Not a path.
    #[error("has {0:?}, which is no path that begins with / and has no query")]
    Path(String),
}

impl Explain for RuleError {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn hint(&self) -> Option<String> {
        match &self.problem {
            RuleProblem::WrongPhase { field } if is_of_responses(field) => {
                Some("set its phase to \"after\"".to_owned())
            }
            RuleProblem::Host(error) => error.hint(),
            RuleProblem::WrongPhase { .. } => Some("set its phase to \"before\"".to_owned()),
            _ => None,
        }
    }
}

/// All rules of a sandbox, in the order in which they are tried.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    before: Arc<[Rule<RequestEdit>]>,
    after: Arc<[Rule<ResponseEdit>]>,
}

impl Rules {
    /// Checks rules and makes them ready.
    ///
    /// # Errors
    /// The first rule that makes no sense, and why.
    pub fn compile(specs: &[RuleSpec], has_callback_socket: bool) -> Result<Self, RuleError> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (index, spec) in specs.iter().enumerate() {
            let name = match spec.name.as_deref() {
                Some(name) if !name.is_empty() => name.to_owned(),
                _ => format!("#{}", index + 1),
            };
            let failed = |problem| RuleError { rule: name.clone(), problem };
            refuse_other_phase(spec).map_err(failed)?;
            let callback = Callback::of(spec, has_callback_socket).map_err(failed)?;
            let filter = Filter::of(spec).map_err(failed)?;
            let block = spec.action == Action::Block;
            match spec.phase {
                Phase::Before => {
                    let edit = RequestEdit::of(spec).map_err(failed)?;
                    before.push(Rule { name, filter, block, edit, callback });
                }
                Phase::After => {
                    let edit = ResponseEdit::of(spec).map_err(failed)?;
                    after.push(Rule { name, filter, block, edit, callback });
                }
            }
        }
        Ok(Self { before: before.into(), after: after.into() })
    }

    /// Those for requests.
    pub(crate) fn before(&self) -> &Arc<[Rule<RequestEdit>]> {
        &self.before
    }

    /// Those for responses.
    pub(crate) fn after(&self) -> &Arc<[Rule<ResponseEdit>]> {
        &self.after
    }

    /// Whether a response to such a request may have its body changed: it must come in a form that we
    /// can read.
    pub(crate) fn may_change_body(&self, subject: &Subject<'_>) -> bool {
        let changes = |rule: &Rule<ResponseEdit>| rule.callback.is_some() || !rule.edit.replacer().is_empty();
        self.after.iter().any(|rule| changes(rule) && rule.filter.matches(subject))
    }
}

/// One rule of a phase.
#[derive(Debug)]
pub(crate) struct Rule<E> {
    /// What explanations call it.
    pub(crate) name: String,
    pub(crate) filter: Filter,
    /// It refuses what it is for.
    pub(crate) block: bool,
    /// What it changes.
    pub(crate) edit: E,
    /// Whom it asks after that.
    pub(crate) callback: Option<Callback>,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) host: &'a Host,
    pub(crate) port: u16,
    pub(crate) method: &'a Method,
    /// The path, without the query, as it is sent.
    pub(crate) path: &'a str,
}

/// Which exchanges a rule is for.
#[derive(Debug)]
pub(crate) struct Filter {
    hosts: Vec<Entry>,
    methods: Vec<String>,
    path: Option<Pattern>,
}

impl Filter {
    fn of(spec: &RuleSpec) -> Result<Self, RuleProblem> {
        let hosts = spec.hosts.iter().map(|host| host.parse().map_err(RuleProblem::Host));
        let methods = spec.methods.iter().map(|method| match method.trim() {
            "" => Err(RuleProblem::Empty("method")),
            method => Ok(method.to_owned()),
        });
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>()?,
            methods: methods.collect::<Result<_, _>>()?,
            path: spec.path.as_deref().filter(|path| !path.is_empty()).map(Pattern::new),
        })
    }

    pub(crate) fn matches(&self, subject: &Subject<'_>) -> bool {
        let host = || self.hosts.iter().any(|host| host.allows(subject.host, subject.port));
        let method =
            || self.methods.iter().any(|method| method.eq_ignore_ascii_case(subject.method.as_str()));
        (self.hosts.is_empty() || host())
            && (self.methods.is_empty() || method())
            && self.path.as_ref().is_none_or(|path| path.matches_path(subject.path))
    }
}

/// Whom a rule asks.
#[derive(Debug, Clone)]
pub(crate) struct Callback {
    pub(crate) id: String,
    pub(crate) timeout: Duration,
}

impl Callback {
    fn of(spec: &RuleSpec, has_socket: bool) -> Result<Option<Self>, RuleProblem> {
        let Some(id) = &spec.callback_id else { return Ok(None) };
        if id.is_empty() {
            return Err(RuleProblem::Empty("callback_id"));
        }
        if !has_socket {
            return Err(RuleProblem::NoCallbackSocket);
        }
        let timeout = match spec.timeout_ms {
            None | Some(0) => CALLBACK_TIMEOUT,
            Some(milliseconds) => Duration::from_millis(milliseconds),
        };
        Ok(Some(Self { id: id.clone(), timeout }))
    }
}

/// A change of the other phase would never be made.
fn refuse_other_phase(spec: &RuleSpec) -> Result<(), RuleProblem> {
    let of_requests = [
        ("set_headers", spec.set_headers.is_empty()),
        ("delete_headers", spec.delete_headers.is_empty()),
        ("set_query", spec.set_query.is_empty()),
        ("delete_query", spec.delete_query.is_empty()),
        ("rewrite_path", spec.rewrite_path.as_deref().is_none_or(str::is_empty)),
    ];
    let of_responses = [
        (SET_RESPONSE_HEADERS, spec.set_response_headers.is_empty()),
        (DELETE_RESPONSE_HEADERS, spec.delete_response_headers.is_empty()),
        (BODY_REPLACEMENTS, spec.body_replacements.is_empty()),
    ];
    let others: &[(&'static str, bool)] = match spec.phase {
        Phase::Before => &of_responses,
        Phase::After => &of_requests,
    };
    match others.iter().find(|(_, is_empty)| !is_empty) {
        Some(&(field, _)) => Err(RuleProblem::WrongPhase { field }),
        None => Ok(()),
    }
}

fn is_of_responses(field: &str) -> bool {
    [SET_RESPONSE_HEADERS, DELETE_RESPONSE_HEADERS, BODY_REPLACEMENTS].contains(&field)
}

fn replacer(spec: &RuleSpec) -> Result<Replacer, RuleProblem> {
    Replacer::new(&spec.body_replacements).map_err(|_| RuleProblem::Empty("text to be replaced"))
}

const SET_RESPONSE_HEADERS: &str = "set_response_headers";
const DELETE_RESPONSE_HEADERS: &str = "delete_response_headers";
const BODY_REPLACEMENTS: &str = "body_replacements";

#[cfg(test)]
mod tests;
