//! `matchlock image`: what is in the store.

use std::path::PathBuf;

use clap::Subcommand;
use image::import::{ImportOptions, Input};
use image::reference::Reference;
use image::store::{ImageRecord, Store, StoreError};

use crate::failure::{Failure, Outcome};
use crate::progress::Bars;
use crate::{host, output, signals, terminal};

/// List, inspect, import and remove images.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock image ls
  docker save app:1 | matchlock image import app:1
  matchlock image rm app:1 && matchlock image gc")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List images.
    #[command(visible_alias = "list")]
    #[command(after_help = "\
Examples:
  matchlock image ls
  matchlock image ls --json")]
    Ls {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Print all that is known of an image, as JSON.
    #[command(after_help = "\
Examples:
  matchlock image inspect debian:12")]
    Inspect {
        /// Its tag.
        tag: Reference,
    },
    /// Make an image of an archive.
    ///
    /// Takes what `docker save` writes, OCI archives and layout folders, and plain tars of a root
    /// file system; plain, gzip or zstd.
    #[command(after_help = "\
Examples:
  docker save app:1 | matchlock image import app:1
  matchlock image import debian rootfs.tar.zst
  matchlock image import app ./oci-layout")]
    Import {
        /// The tag it gets.
        tag: Reference,
        /// Archive or folder; standard input by default.
        path: Option<PathBuf>,
        /// Which image of an archive that holds several.
        #[arg(long, value_name = "NAME")]
        select: Option<String>,
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Remove images. What they took up is freed by `image gc`.
    #[command(visible_alias = "remove")]
    #[command(after_help = "\
Examples:
  matchlock image rm app:1 debian:12
  matchlock image gc                    # frees what only they needed")]
    Rm {
        /// Their tags.
        #[arg(required = true)]
        tags: Vec<Reference>,
    },
    /// Free the space of layers that no image needs and no sandbox uses.
    #[command(after_help = "\
Examples:
  matchlock image gc
  matchlock image gc --json")]
    Gc {
        /// Print a JSON object.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(args: Args) -> Outcome {
    let store = host::store()?;
    match args.action {
        Action::Ls { json } => list(&store, json),
        Action::Inspect { tag } => output::json(&find(&store, &tag)?),
        Action::Import { tag, path, select, json } => import(store, tag, path, select, json),
        Action::Rm { tags } => remove(&store, &tags),
        Action::Gc { json } => collect(&store, json),
    }
}

fn find(store: &Store, tag: &Reference) -> Result<ImageRecord, Failure> {
    match store.find(tag)? {
        Some(image) => Ok(image),
        None => Err(StoreError::UnknownImage(tag.clone()).into()),
    }
}

fn import(
    store: Store,
    tag: Reference,
    path: Option<PathBuf>,
    select: Option<String>,
    json: bool,
) -> Outcome {
    let input = match path.filter(|path| path.as_os_str() != "-") {
        Some(path) => Input::Path(path),
        None if terminal::is_terminal() => {
            return Err(Failure::usage("nothing to import: name an archive or a folder, or pipe one in"));
        }
        None => Input::Stream(Box::new(std::io::stdin())),
    };
    let options = ImportOptions { select, ..ImportOptions::new(tag) };
    let image = signals::interruptible(async {
        let bars = Bars::new();
        let imported =
            signals::blocking(move |cancel| image::import::import(&store, input, &options, &bars, cancel));
        Ok(imported.await?)
    })?;
    if json {
        return output::json(&image);
    }
    output::line(&format!(
        "Imported {}\nDigest: {}\nSize: {}",
        image.tag.familiar(),
        image.digest,
        output::size(image.size)
    ))
}

fn list(store: &Store, json: bool) -> Outcome {
    let images = store.list()?;
    if json {
        return output::json(&images);
    }
    output::table(
        ["TAG", "SOURCE", "SIZE", "CREATED"],
        images.into_iter().map(|image| {
            [
                image.tag.familiar(),
                image.source.to_string(),
                output::size(image.size),
                output::age(image.created),
            ]
        }),
    )
}

fn remove(store: &Store, tags: &[Reference]) -> Outcome {
    for tag in tags {
        store.remove(tag)?;
        output::line(&format!("Removed {}", tag.familiar()))?;
    }
    Ok(0)
}

fn collect(store: &Store, json: bool) -> Outcome {
    let report = store.gc()?;
    if json {
        return output::json(&report);
    }
    output::line(&format!(
        "Removed {} layers, {} merged images, {} temporary files; freed {}",
        report.layers,
        report.merged,
        report.temporaries,
        output::size(report.freed)
    ))
}
