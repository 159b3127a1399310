//! `matchlock volume`: disks of the user's that outlive sandboxes.

use std::path::PathBuf;

use api::disk::{DEFAULT_VOLUME_MB, MAX_VOLUME_MB, MIN_VOLUME_MB, VolumeName};
use clap::Subcommand;
use sandbox::volume::{Volume, Volumes};
use serde::Serialize;

use crate::failure::Outcome;
use crate::progress::CopyBar;
use crate::{host, output, signals};

/// Create, list, copy and remove volumes: disks that outlive sandboxes.
///
/// Attach one with `matchlock run --disk @NAME:/PATH`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock volume create data --size 2048
  matchlock volume ls
  matchlock volume cp data backup
  matchlock volume rm backup")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create an empty volume.
    #[command(after_help = "\
Examples:
  matchlock volume create data
  matchlock volume create cache --size 2048
  matchlock run --image alpine --disk @data:/data -- sh -c 'date >> /data/log'")]
    Create {
        /// Its name: letters, digits, _ . and -, starting with a letter or digit.
        name: VolumeName,
        /// Its size, MiB; space is taken only as it is written.
        #[arg(long, default_value_t = DEFAULT_VOLUME_MB, value_name = "MB", value_parser = clap::value_parser!(u64).range(MIN_VOLUME_MB..=MAX_VOLUME_MB))]
        size: u64,
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List volumes.
    #[command(visible_alias = "list")]
    #[command(after_help = "\
Examples:
  matchlock volume ls
  matchlock volume ls --json")]
    Ls {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Remove volumes that no sandbox uses, with all that is in them.
    #[command(visible_alias = "remove")]
    #[command(after_help = "\
Examples:
  matchlock volume rm data
  matchlock volume rm data cache")]
    Rm {
        /// Their names.
        #[arg(required = true)]
        names: Vec<VolumeName>,
    },
    /// Copy a volume that no sandbox writes to.
    #[command(visible_alias = "copy")]
    #[command(after_help = "\
Examples:
  matchlock volume cp data data-backup")]
    Cp {
        /// The volume to copy.
        source: VolumeName,
        /// The name of the copy.
        destination: VolumeName,
    },
}

pub(crate) fn run(args: Args) -> Outcome {
    let volumes = Volumes::new(&host::home()?);
    match args.action {
        Action::Create { name, size, json } => create(&volumes, &name, size, json),
        Action::Ls { json } => list(&volumes, json),
        Action::Rm { names } => {
            for name in names {
                volumes.remove(&name)?;
                output::line(&format!("Removed volume {name}"))?;
            }
            Ok(0)
        }
        Action::Cp { source, destination } => copy(volumes, source, destination),
    }
}

/// A volume as programs know it.
#[derive(Serialize)]
struct Listed {
    name: VolumeName,
    size: String,
    path: PathBuf,
}

impl From<Volume> for Listed {
    fn from(volume: Volume) -> Self {
        Self { size: mebibytes(volume.size), name: volume.name, path: volume.path }
    }
}

/// A size as it has always been printed, with one decimal.
fn mebibytes(bytes: u64) -> String {
    let tenths = (u128::from(bytes) * 10 + (1 << 19)) >> 20;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

fn create(volumes: &Volumes, name: &VolumeName, size_mb: u64, json: bool) -> Outcome {
    let volume = volumes.create(name, size_mb)?;
    if json {
        return output::json(&Listed::from(volume));
    }
    output::line(&format!("Created volume {name} ({size_mb} MB)"))
}

fn list(volumes: &Volumes, json: bool) -> Outcome {
    let listed = volumes.list()?;
    if json {
        return output::json(&listed.into_iter().map(Listed::from).collect::<Vec<_>>());
    }
    output::table(
        ["NAME", "SIZE", "TAKEN", "PATH"],
        listed.into_iter().map(|volume| {
            let path = volume.path.display().to_string();
            [volume.name.to_string(), mebibytes(volume.size), mebibytes(volume.taken), path]
        }),
    )
}

fn copy(volumes: Volumes, source: VolumeName, destination: VolumeName) -> Outcome {
    let copied = format!("Copied volume {source} to {destination}");
    signals::interruptible(async {
        let mut bar = CopyBar::new(format!("{source} to {destination}"));
        let copy = signals::blocking(move |cancel| {
            volumes.copy(&source, &destination, cancel, &mut |done, total| bar.moved(done, total))
        });
        Ok(copy.await?)
    })?;
    output::line(&copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_mebibytes_with_one_decimal() {
        assert_eq!(mebibytes(10240 << 20), "10240.0 MB");
        assert_eq!(mebibytes(0), "0.0 MB");
        assert_eq!(mebibytes((3 << 20) / 2), "1.5 MB");
        assert_eq!(mebibytes(u64::MAX), "17592186044416.0 MB");
    }
}
