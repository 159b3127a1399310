//! `matchlock kernel`: the guest kernels in the cache.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use vmm::kernel::{BuildOptions, Kernel, Kernels, Progress};

use crate::failure::Outcome;
use crate::{host, output, signals};

/// Build, list and remove guest kernels.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock kernel build
  matchlock kernel ls")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build the kernel of this version from the distribution's source.
    ///
    /// Takes about five minutes, once: if it has been built from the same source, nothing is done.
    #[command(after_help = "\
Examples:
  matchlock kernel build
  matchlock kernel build --source linux-6.12.tar.xz --jobs 8")]
    Build {
        /// Source folder or archive; by default that of Debian's package linux-source-6.12.
        #[arg(long, value_name = "PATH")]
        source: Option<PathBuf>,
        /// Compilers at a time; as many as there are CPUs by default.
        #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
        jobs: Option<u16>,
        /// Build it even if it is there.
        #[arg(long)]
        force: bool,
    },
    /// List kernels. The default one is marked with a star.
    #[command(visible_alias = "list")]
    #[command(after_help = "\
Examples:
  matchlock kernel ls
  matchlock kernel ls --json")]
    Ls {
        /// Print a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Remove kernels.
    #[command(visible_alias = "remove")]
    #[command(after_help = "\
Examples:
  matchlock kernel rm 6.12.90")]
    Rm {
        /// Their names, or the beginnings of them.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

pub(crate) fn run(args: Args) -> Outcome {
    let kernels = Kernels::new(host::cache()?);
    match args.action {
        Action::Build { source, jobs, force } => {
            build(&kernels, &BuildOptions { source, jobs: jobs.map(usize::from), force })
        }
        Action::Ls { json } => list(&kernels, json),
        Action::Rm { names } => {
            for name in names {
                let kernel = kernels.remove(&name)?;
                output::line(&format!("Removed {}", kernel.key))?;
            }
            Ok(0)
        }
    }
}

fn build(kernels: &Kernels, options: &BuildOptions) -> Outcome {
    let bar = ProgressBar::no_length();
    bar.set_style(
        ProgressStyle::with_template("{spinner} kernel: {msg} ({elapsed})")
            .expect("the template is a constant"),
    );
    let mut last = String::new();
    let progress = |progress| {
        let text = match progress {
            Progress::Waiting => "waiting for another build".to_owned(),
            Progress::Downloading => "downloading the source".to_owned(),
            Progress::Unpacking => "unpacking the source".to_owned(),
            Progress::Configuring => "configuring".to_owned(),
            Progress::Compiling { files } if bar.is_hidden() && files % 250 != 0 => return,
            Progress::Compiling { files } => format!("compiled {files} files of about 1900"),
        };
        if bar.is_hidden() && text != last {
            output::say(&format!("kernel: {text}"));
        }
        bar.set_message(text.clone());
        last = text;
    };
    let kernel = signals::interruptible(async {
        bar.enable_steady_tick(Duration::from_millis(100));
        Ok(kernels.build(options, progress).await?)
    })?;
    bar.finish_and_clear();
    output::line(&kernel.path.display().to_string())
}

#[derive(Serialize)]
struct Listed {
    name: String,
    version: String,
    size: u64,
    built: u64,
    path: PathBuf,
    default: bool,
}

fn list(kernels: &Kernels, json: bool) -> Outcome {
    let default = kernels.default_kernel().ok().map(|kernel| kernel.key);
    let listed = kernels.list()?.into_iter().map(|Kernel { key, path, size, info }| Listed {
        default: default.as_ref() == Some(&key),
        name: key,
        version: info.version,
        size,
        built: info.built,
        path,
    });
    if json {
        return output::json(&listed.collect::<Vec<_>>());
    }
    output::table(
        ["NAME", "VERSION", "SIZE", "BUILT"],
        listed.map(|kernel| {
            let star = if kernel.default { "*" } else { "" };
            [kernel.name + star, kernel.version, output::size(kernel.size), output::age(kernel.built)]
        }),
    )
}
