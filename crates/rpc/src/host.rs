//! What a session needs from whoever owns the sandbox.

use std::future::Future;
use std::time::Duration;

use api::rpc::{AllowListAddResult, AllowListDeleteResult, Failure, StatusResult};
use api::spec::CommandSpec;
use sandbox::agent::{AgentError, Running, Stdio};
use sandbox::publish::Publisher;
use tokio::io::AsyncRead;

/// The owner of a sandbox, or of none yet: then every method fails and says so.
///
/// Every future may be dropped before its end, when its request is cancelled or its client is gone;
/// what it has begun must end with it. Only an end that was asked for is not taken back.
pub trait Host: Send + Sync + 'static {
    /// Gives the sandbox's log.
    type Log: AsyncRead + Send + Unpin + 'static;

    /// Starts a command. The specification has an empty entrypoint and all words as its arguments:
    /// neither the image's ENTRYPOINT nor its CMD are added.
    fn exec(
        &self,
        command: CommandSpec,
        stdio: Stdio,
    ) -> impl Future<Output = Result<Running, Failure>> + Send;

    /// The reason behind an error of a running command: perhaps the VM has ended.
    fn explain(&self, error: AgentError) -> impl Future<Output = Failure> + Send;

    /// The log from its beginning. If it is to be followed, it ends with the sandbox; if not, with
    /// what is there now.
    fn log(&self, follow: bool) -> impl Future<Output = Result<Self::Log, Failure>> + Send;

    /// What publishes the guest's ports; of none yet.
    fn publisher(&self) -> Result<Publisher, Failure>;

    /// Allows the guest hosts.
    fn allow(&self, hosts: &[String]) -> Result<AllowListAddResult, Failure>;

    /// Takes hosts back that the guest was allowed.
    fn disallow(&self, hosts: &[String]) -> Result<AllowListDeleteResult, Failure>;

    /// Who this is.
    fn status(&self) -> impl Future<Output = Result<StatusResult, Failure>> + Send;

    /// Ends the sandbox, gracefully if time is given for that, and returns when it has ended.
    fn close(&self, grace: Option<Duration>) -> impl Future<Output = Result<(), Failure>> + Send;
}
