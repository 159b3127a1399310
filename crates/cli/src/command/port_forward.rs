//! `matchlock port-forward`.

use std::net::IpAddr;

use api::forward::{DEFAULT_ADDRESS, Forward};
use api::rpc::PortForwardParams;

use crate::failure::{Failure, Outcome};
use crate::{owner, sandboxes, signals};

/// Forward ports of this machine to a sandbox that is running, until interrupted.
///
/// It works in a sandbox without a network, too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock port-forward web 8080:80
  matchlock port-forward web 0:80 --address 127.0.0.1 --address ::1")]
pub(crate) struct Args {
    /// ID, the beginning of one, or name.
    #[arg(value_name = "ID")]
    sandbox: String,
    /// Ports; LOCAL 0 takes any that is free.
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    forwards: Vec<Forward>,
    /// Address of this machine to listen on.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_values_t = [DEFAULT_ADDRESS])]
    address: Vec<IpAddr>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let record = sandboxes::find(&site, &args.sandbox)?;
    let wanted = PortForwardParams { forwards: args.forwards.clone(), addresses: Some(args.address.clone()) };
    let forwarded = signals::interruptible(async {
        let client = sandboxes::connect(&site, &record).await?;
        owner::announce_forwards(&client.port_forward(&wanted).await?);
        Err::<(), Failure>(client.ended().await.into())
    });
    match forwarded {
        // That is how one ends it.
        Err(failure) if failure.is_interruption() => Ok(0),
        outcome => outcome.map(|()| 0),
    }
}
