//! How fast output goes through a session and its client. Not a check: run it by name.

use std::time::Instant;

use api::rpc::ExecParams;

use super::client::connect;
use crate::client::{Event, Mode};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn output_of_a_command() {
    let (client, _session) = connect();
    let line = "head -c 500000000 /dev/zero".to_owned();
    let params = ExecParams { command: Some(line), ..ExecParams::default() };
    let mut command = client.exec(&params, Mode::Stream).await.unwrap();
    let (start, mut bytes, mut pieces) = (Instant::now(), 0_usize, 0_usize);
    loop {
        match command.events.next().await.unwrap() {
            Event::Stdout(data) => (bytes, pieces) = (bytes + data.len(), pieces + 1),
            Event::Ended(_) => break,
            other => panic!("{other:?}"),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let (rate, piece) = (bytes as f64 / seconds / 1e6, bytes / pieces);
    println!("{bytes} bytes in {seconds:.2} s: {rate:.0} MB/s, {piece} bytes a line");
}
