//! `matchlock run`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use api::SandboxName;
use api::disk::{DiskSource, DiskSpec};
use api::forward::{DEFAULT_ADDRESS, Forward};
use api::network::NetworkSpec;
use api::spec::{
    CommandSpec, Cpus, DEFAULT_DISK_MB, DEFAULT_MEMORY_MB, MIN_DISK_MB, MIN_MEMORY_MB, Resources, SandboxSpec,
};
use clap::ValueEnum;
use image::reference::Reference;
use sandbox::network::{MAX_MTU, MIN_MTU};
use sandbox::scratch::Blank;
use sandbox::timings::Timings;
use sandbox::{Blueprint, Created, Site};

use crate::backend::BackendArg;
use crate::command::owner::{self as detached, Detached};
use crate::command::pull::{self, Policy};
use crate::failure::{Failure, Outcome};
use crate::hosts::hostname;
use crate::network::{self, ReachArgs, Values};
use crate::owner::Machinery;
use crate::session::Connection;
use crate::{environment, host, output, owner, sandboxes, signals, terminal};

/// Run a command in a new sandbox.
///
/// The sandbox is a virtual machine made from the image. Unless it is to be kept (--rm=false, -d) it
/// is gone, with all that the command wrote, when the command ends. Standard output and standard
/// error are the command's; everything that matchlock says goes to standard error.
///
/// It can reach the public internet, but no private address, this machine included. With any
/// --allow-host or --secret it can reach the hosts named there and nothing else.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock run --image debian-python -- python3 -c 'print(6*7)'
  matchlock run --image alpine -it -- sh
  echo hello | matchlock run --image debian:12 -i -- tr a-z A-Z
  matchlock run --image debian:12 --disk @data:/data -- sh -c 'date >> /data/log'
  matchlock run --image debian:12 --cpus 2 --memory 1024 --timeout 60 -- make -j2
  matchlock run --image python --allow-host pypi.org,files.pythonhosted.org -- pip install requests
  matchlock run --image agent --secret API_KEY@api.example.com -- agent    # $API_KEY is a placeholder
  matchlock run --image nginx -d -p 8080:80 --name web
  matchlock exec web -- nginx -t

Exit code: the command's; 128+N if signal N ended it; 127 command not found; 126 not executable;
125 matchlock failed; 124 --timeout; 2 wrong usage.")]
pub(crate) struct Args {
    /// Image: a reference (debian:12, ghcr.io/org/app@sha256:…) or the tag of an imported image.
    #[arg(long)]
    image: Reference,
    /// When to pull the image from its registry.
    #[arg(long, value_enum, num_args = 0..=1, default_value = "missing", default_missing_value = "always", require_equals = true)]
    pull: Policy,
    /// Pull over plain HTTP even from a registry that is not on this machine.
    #[arg(long)]
    plain_http: bool,

    /// Set a variable: NAME=VALUE, or NAME for the value it has here.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file of such lines; --env overrides them.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory; made if it is missing.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group: NAME, UID, NAME:GROUP or UID:GID, from the image's /etc/passwd and /etc/group.
    #[arg(short, long)]
    user: Option<String>,
    /// Replace the image's entrypoint; empty for none.
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Keep all capabilities and system calls (inside the VM).
    #[arg(long)]
    privileged: bool,

    /// Pass standard input on.
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    tty: bool,
    /// Leave the sandbox running in the background and print its ID; implies --rm=false.
    #[arg(short, long, conflicts_with = "timings")]
    detach: bool,
    /// Remove the sandbox when its command ends. With --rm=false it stays until it is killed, and
    /// its disk until it is removed.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_name = "BOOL")]
    rm: Option<bool>,
    /// Another way to name the sandbox than its ID.
    #[arg(long)]
    name: Option<SandboxName>,

    /// Forward a port of this machine to one of the sandbox: [LOCAL:]REMOTE; LOCAL 0 takes any
    /// that is free.
    #[arg(short, long, value_name = "[LOCAL:]REMOTE", value_delimiter = ',')]
    publish: Vec<Forward>,
    /// Address of this machine that published ports listen on.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_values_t = [DEFAULT_ADDRESS])]
    address: Vec<IpAddr>,

    /// CPUs; a fraction gets the next whole number of vCPUs and is capped by a quota.
    #[arg(long, default_value = "1", value_name = "N")]
    cpus: Cpus,
    /// Memory, MiB.
    #[arg(long, default_value_t = DEFAULT_MEMORY_MB, value_name = "MB", value_parser = clap::value_parser!(u32).range(i64::from(MIN_MEMORY_MB)..))]
    memory: u32,
    /// Size of the disk that the sandbox can write, MiB; space is taken only as it is written.
    #[arg(long, default_value_t = DEFAULT_DISK_MB, value_name = "MB", value_parser = clap::value_parser!(u64).range(MIN_DISK_MB..=MAX_DISK_MB))]
    disk_size: u64,
    /// Attach a disk that outlives the sandbox: a file with an ext4 file system, or a volume (see
    /// `matchlock volume`), and where it is mounted; with :ro nobody in the sandbox can change it.
    #[arg(long, value_name = "FILE|@VOLUME:/PATH[:ro]", value_delimiter = ',')]
    disk: Vec<DiskSpec>,
    /// End the command (SIGTERM, then SIGKILL) after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
    /// When the sandbox ends, let the guest end what still runs and sync its disks for up to this
    /// long (30s, 500ms). By default a sandbox that is kept or has volumes gets 10 seconds, and any
    /// other is dropped at once.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    graceful_shutdown: Option<Duration>,

    /// Host name in the sandbox; its ID by default.
    #[arg(long, value_parser = hostname)]
    hostname: Option<String>,
    #[command(flatten)]
    reach: ReachArgs,
    /// Nameservers that questions are passed on to, and that /etc/resolv.conf names. By default this
    /// machine's own resolver answers. What may be asked is decided here in any case.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', help_heading = "Network")]
    dns_servers: Vec<IpAddr>,
    /// The most bytes of one IP packet; by default what is fastest.
    #[arg(long, value_name = "BYTES", help_heading = "Network", value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..=i64::from(MAX_MTU)))]
    mtu: Option<u16>,
    /// No network but `lo`. Published ports work all the same.
    #[arg(long, help_heading = "Network")]
    no_network: bool,

    /// Boot this kernel (an uncompressed vmlinux) instead of the default one.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    #[command(flatten)]
    backend: BackendArg,
    /// Print where the time went, as a table or as one line of JSON, to standard error.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "table", require_equals = true, value_name = "FORMAT")]
    timings: Option<TimingsFormat>,

    /// The command and its arguments; the image's own by default.
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The largest scratch disk, MiB: ext4's limit with blocks of 4 KiB, 16 TiB.
const MAX_DISK_MB: u64 = 16 * 1024 * 1024;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TimingsFormat {
    Table,
    Json,
}

pub(crate) fn run(args: &Args) -> Outcome {
    start(args).map_err(Failure::of_run)
}

fn start(args: &Args) -> Outcome {
    let mut timings = Timings::start();
    let (spec, secrets) = meaning(args)?;
    signals::caught(async |signals| {
        // Whatever is waited for below, this can be done meanwhile.
        let blank = Blank::begin(spec.resources.disk_mb)?;
        let machinery = Machinery::find(&spec, secrets.clone())?;
        let site = sandboxes::site()?;
        let created = tokio::select! {
            created = create(args, spec, machinery.backend(), blank, &site, &mut timings) => created?,
            _ = signals.next() => return Err(Failure::interrupted()),
        };
        if args.detach {
            let id = created.id();
            return match detached::detach(created, &secrets, signals, |id| site.remove(id)).await? {
                Detached::Running => output::line(&id.to_string()),
                Detached::Failed(code) => Ok(code),
            };
        }
        let connection = Connection {
            stdin: args.interactive,
            terminal: args.tty,
            detached: false,
            timeout: created.blueprint().spec.timeout,
        };
        let (announce, times) = (owner::announce, &mut timings);
        let code = owner::own(created, &site, &machinery, connection, signals, times, announce).await?;
        if let Some(format) = args.timings {
            report(&timings, format);
        }
        Ok(code)
    })
}

/// What the arguments ask for, and the values of its secrets.
fn meaning(args: &Args) -> Result<(SandboxSpec, Values), Failure> {
    if args.detach && (args.tty || args.interactive) {
        return Err(Failure::usage("--detach cannot be combined with -t/--tty or -i/--interactive"));
    }
    terminal::check(args.tty, args.interactive)?;
    let (reach, secrets) = args.reach.meaning(network::from_environment)?;
    if args.no_network && reach != NetworkSpec::default() {
        return Err(Failure::usage(
            "--no-network cannot be combined with hosts, secrets, rules or --network-intercept",
        ));
    }
    let spec = SandboxSpec {
        image: args.image.familiar(),
        name: args.name.clone(),
        command: CommandSpec {
            entrypoint: args.entrypoint.clone(),
            args: args.command.clone(),
            env: environment::collect(&args.env_file, &args.env)?,
            working_dir: args.workdir.clone(),
            user: args.user.clone(),
            privileged: args.privileged,
        },
        keep: !args.rm.unwrap_or(!args.detach),
        resources: Resources { cpus: args.cpus, memory_mb: args.memory, disk_mb: args.disk_size },
        disks: args.disk.iter().cloned().map(in_every_directory).collect::<Result<_, _>>()?,
        hostname: args.hostname.clone(),
        add_hosts: args.reach.add_host.clone(),
        dns_servers: args.dns_servers.clone(),
        network: NetworkSpec { no_network: args.no_network, mtu: args.mtu, ..reach },
        kernel: args.kernel.clone().or_else(host::kernel).as_deref().map(host::absolute).transpose()?,
        backend: args.backend.chosen()?,
        timeout: args.timeout,
        graceful_shutdown: args.graceful_shutdown,
        publish: args.publish.clone(),
        publish_addresses: args.address.clone(),
    };
    Ok((spec, secrets))
}

/// A disk that is the same one wherever the sandbox is started again.
fn in_every_directory(mut disk: DiskSpec) -> Result<DiskSpec, Failure> {
    if let DiskSource::File(path) = &mut disk.source {
        *path = host::absolute(path)?;
    }
    Ok(disk)
}

/// From what was asked for to a sandbox that can be started: all that may be wrong with it is told
/// before a VM is started for it.
async fn create(
    args: &Args,
    spec: SandboxSpec,
    backend: &str,
    blank: Blank,
    site: &Site,
    timings: &mut Timings,
) -> Result<Created, Failure> {
    let image = pull::ensure(&site.images, &args.image, args.pull, args.plain_http).await?;
    timings.mark("image");
    let blueprint = Blueprint { spec, image };
    blueprint.check()?;
    site.sweep()?;
    let created = Created::new(site, blueprint, backend, blank)?;
    timings.mark("record");
    Ok(created)
}

fn report(timings: &Timings, format: TimingsFormat) {
    match format {
        TimingsFormat::Json => {
            output::say(&serde_json::to_string(timings.stages()).expect("our own types serialize"));
        }
        TimingsFormat::Table => {
            for stage in timings.stages() {
                let ms = |us: u64| Duration::from_micros(us).as_secs_f64() * 1000.0;
                let (at, took) = (ms(stage.at_us), ms(stage.took_us));
                output::say(&format!("{at:>9.1} ms  {took:>9.1} ms  {}", stage.name));
            }
        }
    }
}

/// Seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match in_range(seconds)? {
        Duration::ZERO => Err("must be more than 0".to_owned()),
        duration => Ok(duration),
    }
}

fn in_range(seconds: f64) -> Result<Duration, String> {
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= LONGEST);
    duration.ok_or_else(|| "out of range: from 0 to a hundred years".to_owned())
}

/// The longest that anybody is waited for: a century, to which any time of this machine can be added.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A number with `ms`, `s`, `m` or `h`; without, seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "not a duration, for example 30s or 500ms".to_owned())?;
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit {unit:?}: use ms, s, m or h")),
    };
    in_range(number * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "5x", "-1s", "1e400s", "1e18h", "1e19"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "-1", "nan", "soon", "1e19", "inf"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
