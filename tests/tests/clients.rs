//! Hostile and clumsy clients on a sandbox's socket, and a guest that takes all it can: the owner lives,
//! its memory stays bounded, others are served.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use harness::cache::{self, BUSYBOX};
use harness::{Matchlock, quiet_port};
use serde_json::{Value, json};

/// The most that an owner may ever have had in memory: 256 MiB of collected output, one line of 64 MiB
/// while it is read, and what a program of its size takes.
const MAX_RESIDENT_KB: u64 = 450 * 1024;

struct Victim {
    matchlock: Matchlock,
    id: String,
}

impl Victim {
    fn new(flags: &[&str]) -> Self {
        let matchlock = Matchlock::new();
        let id = matchlock.detached(&[flags, &["--image", BUSYBOX, "--", "sleep", "1000"]].concat());
        Self { matchlock, id }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory().join("rpc.sock")).expect("the owner listens");
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&stream, Some(Duration::from_secs(30))).expect("it is not zero");
        }
        stream
    }

    fn directory(&self) -> std::path::PathBuf {
        self.matchlock.home().join("sandboxes").join(&self.id)
    }

    /// Others are served, soon, and the owner has not taken too much.
    fn assert_well(&self) {
        let output = self.matchlock.run(&["exec", &self.id, "echo", "well"]).success();
        assert_eq!(output.stdout_text(), "well\n");
        assert!(output.duration < Duration::from_secs(10), "{:?}", output.duration);
        let pid = self.matchlock.owner(&self.id).as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the owner lives");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("it is a number");
        assert!(peak < MAX_RESIDENT_KB, "the owner had {peak} kB in memory");
    }
}

fn request(id: usize, method: &str, params: &Value) -> Vec<u8> {
    format!("{}\n", json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).into_bytes()
}

fn answers(stream: &UnixStream, count: usize) -> Vec<Value> {
    let lines = BufReader::new(stream).lines().take(count);
    lines.map(|line| serde_json::from_str(&line.expect("it comes in time")).expect("it is JSON")).collect()
}

/// What an owner kept a moment longer would be in the way of whoever starts the sandbox again, or
/// removes its image.
#[test]
fn the_answer_to_close_comes_when_ports_and_layers_are_free() {
    let matchlock = Matchlock::without_images();
    let tar = fs::read(cache::tar(BUSYBOX)).unwrap();
    let _ = matchlock.run_with_input(&["image", "import", "box"], tar).success();
    let layers = fs::read_dir(matchlock.cache().join("images/layers/sha256")).unwrap();
    let layers: Vec<_> = layers.map(|entry| entry.unwrap().path()).collect();
    let published = quiet_port();
    let run = ["-p", &format!("{published}:9"), "--image", "box", "--", "sleep", "1000"];
    let victim = Victim { id: matchlock.detached(&run), matchlock };
    for round in 0..5 {
        let mut client = victim.connect();
        let forwarded = quiet_port();
        let forwards = json!({ "forwards": [{ "local_port": forwarded, "remote_port": 9 }] });
        client.write_all(&request(1, "port_forward", &forwards)).unwrap();
        assert!(answers(&client, 1)[0]["error"].is_null(), "round {round}");
        client.write_all(&request(2, "close", &json!({}))).unwrap();
        assert!(answers(&client, 1)[0]["error"].is_null(), "round {round}");
        for port in [published, forwarded] {
            let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            assert!(bound.is_ok(), "round {round}: {bound:?} of port {port}");
        }
        assert_eq!(layers.len(), 1);
        let locked = File::open(&layers[0]).unwrap().try_lock();
        assert!(locked.is_ok(), "round {round}: {locked:?} of the layer");
        let _ = victim.matchlock.run(&["start", &victim.id]).success();
    }
}

#[test]
fn nonsense_is_answered_and_a_line_without_end_cut_off() {
    let victim = Victim::new(&[]);
    let mut client = victim.connect();
    let deep = [b"[".repeat(100_000), b"\n".to_vec()].concat();
    for line in [&b"garbage\n"[..], b"\x00\xff\n", b"{}\n", b"[]\n", b"\"\"\n", &deep] {
        client.write_all(line).unwrap();
        assert!(answers(&client, 1)[0]["error"]["code"].as_i64().unwrap() <= -32600);
    }
    client.write_all(&request(1, "status", &Value::Null)).unwrap();
    assert_eq!(answers(&client, 1)[0]["result"]["id"], victim.id.as_str());
    let mut endless = victim.connect();
    let piece = vec![b'x'; 1 << 20];
    let sent = (0..100).take_while(|_| endless.write_all(&piece).is_ok()).count();
    assert!((64..100).contains(&sent), "{sent} MiB were taken");
    victim.assert_well();
}

#[test]
fn too_many_clients_are_told_so_and_idle_ones_harm_nobody() {
    let victim = Victim::new(&[]);
    let mut clients: Vec<_> = (0..70).map(|_| victim.connect()).collect();
    let refused = answers(clients.last().unwrap(), 1);
    assert_eq!(refused[0]["error"]["data"]["kind"], "limit_exceeded");
    let output = victim.matchlock.run(&["exec", &victim.id, "true"]);
    assert_eq!(output.code, Some(125));
    assert!(output.stderr_text().contains("hint: "), "{}", output.stderr_text());
    clients.truncate(60);
    for client in &mut clients {
        client.write_all(b"{\"jsonrpc\"").unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    victim.assert_well();
    for client in &clients {
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    victim.assert_well();
}

#[test]
fn who_reads_nothing_costs_the_owner_little() {
    let victim = Victim::new(&[]);
    let fill = "dd if=/dev/zero bs=64k count=160 2>/dev/null | tr '\\0' x";
    let _ = victim.matchlock.run(&["exec", &victim.id, "--", "sh", "-c", fill]).success();
    let (mut log, mut output) = (victim.connect(), victim.connect());
    log.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let asked = (0..1000).take_while(|&id| log.write_all(&request(id, "log", &json!({}))).is_ok());
    assert!(asked.count() > 8);
    for id in 0..8 {
        output.write_all(&request(id, "exec_stream", &json!({ "command": "yes" }))).unwrap();
        output.write_all(&request(100 + id, "exec", &json!({ "command": "yes" }))).unwrap();
    }
    std::thread::sleep(Duration::from_secs(4));
    victim.assert_well();
    drop((log, output));
    victim.assert_well();
}

#[test]
fn more_commands_than_there_may_be_are_refused_and_then_there_is_room_again() {
    let victim = Victim::new(&[]);
    let mut clients = [victim.connect(), victim.connect()];
    for client in &mut clients {
        for id in 0..150 {
            client.write_all(&request(id, "exec", &json!({ "command": "sleep 6" }))).unwrap();
        }
    }
    let mut refused = 0;
    for answer in clients.iter().flat_map(|client| answers(client, 150)) {
        match answer.get("error") {
            None => assert_eq!(answer["result"]["exit_code"], 0),
            Some(error) => {
                assert_eq!(error["data"]["kind"], "limit_exceeded", "{error}");
                assert!(error["data"]["hint"].is_string(), "{error}");
                refused += 1;
            }
        }
    }
    assert!((44..100).contains(&refused), "{refused} were refused");
    victim.assert_well();
}

/// Its log is bounded, and its owner's complaints are not the place for it.
#[test]
fn what_floods_in_the_background_takes_a_bounded_part_of_the_disk() {
    let matchlock = Matchlock::new();
    let id = matchlock.detached(&["--image", BUSYBOX, "--", "sh", "-c", "yes & yes >&2"]);
    std::thread::sleep(Duration::from_secs(3));
    let victim = Victim { matchlock, id };
    for (name, most) in [("log", 5 << 20), ("log.1", 5 << 20), ("owner.log", 4096)] {
        let size = fs::metadata(victim.directory().join(name)).map_or(0, |file| file.len());
        assert!(size < most, "{name} has {size} bytes");
    }
    victim.assert_well();
}

/// Who starts a command in the background is told why it ended at once.
#[test]
fn what_ends_at_once_in_the_background_has_its_last_words() {
    let matchlock = Matchlock::new();
    let line = "echo not an ID; echo bad >&2; exit 3";
    let run = ["run", "-d", "--rm", "--image", BUSYBOX, "--", "sh", "-c", line];
    // On a machine that is busy it may take longer than a sandbox is watched before it is said to run.
    let output = (0..5).map(|_| matchlock.run(&run)).find(|output| output.code != Some(0));
    let output = output.expect("it ends at once in one of many tries");
    assert_eq!((output.code, output.stdout_text().as_str()), (Some(3), ""), "{}", output.stderr_text());
    assert!(output.stderr_text().contains("bad\n"), "{}", output.stderr_text());
    matchlock.assert_nothing_left();
}

#[test]
fn a_fork_bomb_a_flood_of_output_and_a_full_disk_stay_in_the_guest() {
    let victim = Victim::new(&["--disk-size", "64"]);
    let matchlock = &victim.matchlock;
    let flood: Vec<_> = (0..3).map(|_| matchlock.spawn(&["exec", &victim.id, "yes"])).collect();
    let bomb = "b() { b | b & }; b; sleep 1000";
    let bomb = matchlock.spawn(&["exec", &victim.id, "--", "sh", "-c", bomb]);
    let fill = "dd if=/dev/zero of=/full bs=64k; sync; df / | tail -1";
    let fill = matchlock.spawn(&["exec", &victim.id, "--", "sh", "-c", fill]);
    std::thread::sleep(Duration::from_secs(5));
    let asked = Instant::now();
    assert_eq!(matchlock.list()[0]["status"], "running");
    assert!(asked.elapsed() < Duration::from_secs(5), "the host is not responsive");
    drop((flood, bomb, fill));
    for name in ["log", "log.1"] {
        let size = fs::metadata(victim.directory().join(name)).map_or(0, |file| file.len());
        assert!(size < 5 << 20, "{name} has {size} bytes");
    }
    let _ = matchlock.run(&["kill", &victim.id]).success();
    let _ = matchlock.run(&["start", &victim.id]).success();
    let fill = "dd if=/dev/zero of=/full bs=64k 2>/dev/null; test -s /full";
    let _ = matchlock.run(&["exec", &victim.id, "--", "sh", "-c", fill]).success();
    let _ = matchlock.run(&["stop", "--timeout", "1s", &victim.id]).success();
    // A disk without a free block boots, too.
    let _ = matchlock.run(&["start", &victim.id]).success();
    victim.assert_well();
    let mut rest = String::new();
    let log = matchlock.run(&["log", &victim.id]).success();
    log.stdout.as_slice().take(10).read_to_string(&mut rest).unwrap();
    assert!(!rest.is_empty());
}

#[test]
fn a_disk_without_a_free_inode_boots_again_and_again() {
    let victim = Victim::new(&["--disk-size", "16"]);
    let matchlock = &victim.matchlock;
    for round in 0..3 {
        let fill = format!(
            "n=0; while true >/{round}-$n; do n=$((n + 1)); done 2>/dev/null; df -i / | awk '{{ print $4 }}'"
        );
        let free = matchlock.run(&["exec", &victim.id, "--", "sh", "-c", &fill]).success();
        assert_eq!(free.stdout_text(), "Available\n0\n", "round {round}");
        let _ = matchlock.run(&["stop", "--timeout", "1s", &victim.id]).success();
        let _ = matchlock.run(&["start", &victim.id]).success();
        victim.assert_well();
    }
}

/// The `/dev` of privileged commands is the agent's, who must not wait for anybody there.
#[test]
fn a_pipe_in_place_of_the_agents_dev_null_holds_up_no_command() {
    let victim = Victim::new(&["--privileged"]);
    for replace in ["rm /dev/null", "mkfifo /dev/null"] {
        let _ = victim.matchlock.run(&["exec", &victim.id, "--", "sh", "-c", replace]).success();
        let mut client = victim.connect();
        client.write_all(&request(1, "exec", &json!({ "command": "cat; echo well" }))).unwrap();
        let answer = &answers(&client, 1)[0];
        assert_eq!(answer["result"]["exit_code"], 0, "{replace}: {answer}");
    }
    victim.assert_well();
}
