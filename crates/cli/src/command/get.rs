//! `matchlock get`.

use std::collections::BTreeMap;

use sandbox::state::Record;
use sandbox::{Blueprint, Site};
use serde_json::{Value, json};

use crate::failure::{Failure, Outcome};
use crate::{output, sandboxes};

/// Show a sandbox as JSON.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  matchlock get vm-1a2b3c4d

Environment variables are shown; values of secrets never are.")]
pub(crate) struct Args {
    /// ID, the beginning of one, or name.
    #[arg(value_name = "ID")]
    sandbox: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let site = sandboxes::site()?;
    let record = sandboxes::find(&site, &args.sandbox)?;
    output::json(&view(&site, &record)?)
}

/// A sandbox as programs see it. Its configuration has the names of the RPC method `create`, where that has any.
pub(crate) fn view(site: &Site, record: &Record) -> Result<Value, Failure> {
    let status = site.status(record);
    Ok(json!({
        "id": record.id,
        "name": record.name,
        "pid": record.owner_pid.filter(|_| status.is_alive()),
        "status": status,
        "image": record.image,
        "exit_code": record.exit_code,
        "created_at": output::rfc3339(record.created_at),
        "config": config(&Blueprint::read(record.id, &record.spec)?),
    }))
}

fn config(blueprint: &Blueprint) -> Value {
    let Blueprint { spec, image } = blueprint;
    let env: BTreeMap<&str, &str> =
        spec.command.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let add_hosts: Vec<Value> =
        spec.add_hosts.iter().map(|(ip, host)| json!({ "host": host, "ip": ip })).collect();
    let disks: Vec<Value> = spec
        .disks
        .iter()
        .map(|disk| json!({ "host_path": disk.source.to_string(), "guest_mount": disk.target, "readonly": disk.read_only }))
        .collect();
    json!({
        "image": spec.image,
        "image_digest": image.digest,
        "keep": spec.keep,
        "privileged": spec.command.privileged,
        "command": spec.command.args,
        "entrypoint": spec.command.entrypoint,
        "working_dir": spec.command.working_dir,
        "user": spec.command.user,
        "env": env,
        "resources": {
            "cpus": spec.resources.cpus.as_f64(),
            "memory_mb": spec.resources.memory_mb,
            "disk_size_mb": spec.resources.disk_mb,
            "timeout_seconds": spec.timeout.map(|timeout| timeout.as_secs_f64()),
        },
        "network": {
            "no_network": spec.network.no_network,
            "allowed_hosts": spec.network.allowed_hosts,
            "passthrough_hosts": spec.network.passthrough_hosts,
            "block_private_ips": spec.network.block_private_ips,
            "intercept": spec.network.intercept,
            "secrets": spec.network.secrets,
            "interception": { "rules": spec.network.rules, "callback_socket": spec.network.callback_socket },
            "mtu": spec.network.mtu,
            "hostname": spec.hostname,
            "add_hosts": add_hosts,
            "dns_servers": spec.shown_dns_servers(),
        },
        "extra_disks": disks,
        "publish": spec.publish,
        "publish_addresses": spec.publish_addresses,
    })
}
