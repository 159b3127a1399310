//! `matchlock pull`, and the pull that a `run` may need first.

use std::sync::Arc;

use clap::ValueEnum;
use image::platform::Platform;
use image::pull::{PullOptions, Pulled};
use image::reference::Reference;
use image::registry::RegistryOptions;
use image::store::{ImageRecord, Store, StoreError};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::host;
use crate::output;
use crate::progress::Bars;
use crate::signals;

/// Pull an image from its registry.
///
/// Credentials are Docker's and Podman's: their configuration files and credential helpers.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock pull debian:12
  matchlock pull -t app registry.example.org/team/app:1.2
  matchlock pull localhost:5000/app")]
pub(crate) struct Args {
    /// Image reference.
    reference: Reference,
    /// Keep it under this tag as well as its own name's place.
    #[arg(short, long)]
    tag: Option<Reference>,
    /// Download and convert again what is there already.
    #[arg(long)]
    force: bool,
    /// Platform, for example linux/arm64; this machine's by default.
    #[arg(long)]
    platform: Option<Platform>,
    /// Speak plain HTTP even to a registry that is not on this machine.
    #[arg(long)]
    plain_http: bool,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// When a run pulls its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Ask the registry every time.
    Always,
    /// Only an image that is not there.
    Missing,
    /// Never; an image that is not there is an error.
    Never,
}

#[derive(Serialize)]
struct Report<'a> {
    tag: &'a Reference,
    digest: String,
    size: u64,
    up_to_date: bool,
}

pub(crate) fn run(args: Args) -> Outcome {
    let store = host::store()?;
    let options = PullOptions {
        force: args.force,
        platform: args.platform,
        tag: args.tag,
        registry: RegistryOptions { plain_http: args.plain_http, ..RegistryOptions::default() },
    };
    let Pulled { image, up_to_date } = signals::interruptible(pull(&store, &args.reference, &options))?;
    if args.json {
        return output::json(&Report {
            tag: &image.tag,
            digest: image.digest.to_string(),
            size: image.size,
            up_to_date,
        });
    }
    if up_to_date {
        output::line(&format!("{} is up to date", image.tag.familiar()))?;
    }
    output::line(&format!("Digest: {}\nSize: {}", image.digest, output::size(image.size)))
}

/// The image for a run, pulled first if the policy says so.
pub(crate) async fn ensure(
    store: &Store,
    reference: &Reference,
    policy: Policy,
    plain_http: bool,
) -> Result<ImageRecord, Failure> {
    if policy != Policy::Always
        && let Some(image) = store.find(reference)?
    {
        return Ok(image);
    }
    if policy == Policy::Never {
        return Err(StoreError::UnknownImage(reference.clone()).into());
    }
    let registry = RegistryOptions { plain_http, ..RegistryOptions::default() };
    Ok(pull(store, reference, &PullOptions { registry, ..PullOptions::default() }).await?.image)
}

async fn pull(store: &Store, reference: &Reference, options: &PullOptions) -> Result<Pulled, Failure> {
    Ok(image::pull::pull(store, reference, options, Arc::new(Bars::new())).await?)
}
