//! Disks that outlive a sandbox: what is written stays, what is protected stays as it was, and nobody
//! has to repair anything.
#![expect(clippy::unwrap_used, reason = "in a test, a failure is the result")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::cache::{self, BUSYBOX};
use harness::oci::Layout;
use harness::{Matchlock, Output, Running};
use rustix::process::{Pid, Signal, kill_process};

/// Runs a shell line in a busybox sandbox with these disks.
fn sh(matchlock: &Matchlock, disks: &[&str], line: &str) -> Output {
    matchlock.run(&arguments(BUSYBOX, disks, &[], line))
}

fn arguments<'a>(image: &'a str, disks: &[&'a str], flags: &[&'a str], line: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["run", "--image", image];
    arguments.extend(disks.iter().flat_map(|disk| ["--disk", disk]));
    arguments.extend(flags);
    arguments.extend(["--", "sh", "-c", line]);
    arguments
}

/// With a volume `data`.
fn with_volume() -> Matchlock {
    let matchlock = Matchlock::new();
    let _ = matchlock.run(&["volume", "create", "data", "--size", "64"]).success();
    matchlock
}

fn path(matchlock: &Matchlock, name: &str) -> PathBuf {
    matchlock.home().join("volumes").join(format!("{name}.ext4"))
}

/// A file system of the user's own making.
fn own_disk(matchlock: &Matchlock, name: &str) -> String {
    let path = matchlock.user_home().join(name);
    File::create(&path).unwrap().set_len(32 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&path).status();
    assert!(made.expect("mkfs.ext4 is needed: apt install e2fsprogs").success());
    path.to_str().unwrap().to_owned()
}

fn e2fsck(flags: &[&str], path: &Path) -> (bool, String) {
    let output = Command::new("e2fsck").args(flags).arg(path).output();
    let output = output.expect("e2fsck is needed: apt install e2fsprogs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the journal holds changes that were not made yet: feature `needs_recovery`.
fn is_unrecovered(path: &Path) -> bool {
    let mut features = [0];
    File::open(path).unwrap().read_exact_at(&mut features, 1024 + 0x60).unwrap();
    features[0] & 4 != 0
}

fn assert_clean(path: &Path) {
    assert!(!is_unrecovered(path), "{} was not unmounted", path.display());
    let (clean, said) = e2fsck(&["-f", "-n"], path);
    assert!(clean, "{said}");
}

fn assert_refused(output: &Output, words: &str) {
    assert_eq!((output.code, output.stdout_text().as_str()), (Some(125), ""), "{}", output.stderr_text());
    assert!(output.stderr_text().contains(words), "{words:?} in {}", output.stderr_text());
}

/// A run with the volume once a killed VM has let go of it.
fn sh_when_free(matchlock: &Matchlock) -> Output {
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        let output = sh(matchlock, &["@data:/data"], "true");
        if output.code == Some(0) || Instant::now() > patience {
            return output;
        }
    }
}

#[test]
fn what_one_run_writes_the_next_one_reads() {
    let matchlock = with_volume();
    let own = own_disk(&matchlock, "own:disk.ext4");
    let mounted = format!("{own}:/var/own");
    let line = "echo volume > /data/deep; echo own > /var/own/file; \
                head -c 20000000 /dev/urandom > /data/big; sha1sum < /data/big";
    let first = sh(&matchlock, &["@data:/data", &mounted], line).success();
    // As it is after a run that nobody asked to be graceful.
    assert_clean(&path(&matchlock, "data"));
    assert_clean(Path::new(&own));
    let line = "cat /data/deep /var/own/file; sha1sum < /data/big";
    let second = sh(&matchlock, &[&mounted, "@data:/data"], line).success();
    assert_eq!(second.stdout_text(), format!("volume\nown\n{}", first.stdout_text()));
    matchlock.assert_nothing_left();
}

#[test]
fn what_a_failed_or_interrupted_run_has_written_stays_too() {
    let matchlock = with_volume();
    let failed = sh(&matchlock, &["@data:/data"], "echo failed > /data/failed; exit 3");
    assert_eq!(failed.code, Some(3));
    let line = "echo stopped > /data/stopped; echo ready; exec sleep 100";
    let running = matchlock.spawn(&arguments(BUSYBOX, &["@data:/data"], &[], line));
    running.wait_for_stdout("ready");
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code, Some(143));
    assert_clean(&path(&matchlock, "data"));
    let output = sh(&matchlock, &["@data:/data:ro"], "cat /data/failed /data/stopped").success();
    assert_eq!(output.stdout_text(), "failed\nstopped\n");
}

/// Neither a file of it, nor its mount, nor the device can be changed, by whomever.
#[test]
fn a_read_only_disk_stays_as_it_is_whatever_root_in_the_guest_does() {
    let matchlock = with_volume();
    let _ = sh(&matchlock, &["@data:/data"], "echo kept > /data/file").success();
    let before = fs::read(path(&matchlock, "data")).unwrap();
    let line = "exec 2>/dev/null; for attempt in 'echo x > /data/file' 'rm /data/file' 'mkdir /data/new' \
                'mount -o remount,rw /data && echo x > /data/file' \
                'test -b /dev/vdc && dd if=/dev/zero of=/dev/vdc bs=4096 count=1 conv=fsync' 'blockdev --setrw /dev/vdc && \
                 dd if=/dev/zero of=/dev/vdc bs=4096 count=1 conv=fsync'; do \
                sh -c \"$attempt\" >/dev/null && echo \"done: $attempt\"; done; cat /data/file";
    for flags in [&[][..], &["--privileged"]] {
        let output = matchlock.run(&arguments(BUSYBOX, &["@data:/data:ro"], flags, line)).success();
        assert_eq!(output.stdout_text(), "kept\n", "{flags:?}");
    }
    assert!(fs::read(path(&matchlock, "data")).unwrap() == before, "not a bit is another");
}

#[test]
fn a_volume_has_one_writer_or_many_readers() {
    let matchlock = with_volume();
    let hold = |disk: &str| {
        let running = matchlock.spawn(&arguments(BUSYBOX, &[disk], &[], "echo ready; exec sleep 100"));
        running.wait_for_stdout("ready");
        running
    };
    let busy = "volume data is in use by another sandbox";
    let data = path(&matchlock, "data");
    let writer = hold("@data:/data");
    for disk in ["@data:/data", "@data:/data:ro"] {
        assert_refused(&sh(&matchlock, &[disk], "true"), busy);
    }
    let same_file = format!("{}:/data", data.display());
    assert_refused(&sh(&matchlock, &[&same_file], "true"), "is in use by another sandbox");
    for command in [&["volume", "rm", "data"][..], &["volume", "cp", "data", "copy"]] {
        let refused = matchlock.run(command);
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr_text().contains(busy), "{}", refused.stderr_text());
    }
    assert!(data.exists() && !path(&matchlock, "copy").exists());
    // The lock goes with the VM, not with a clean end of ours.
    writer.signal(Signal::KILL);
    drop(writer.wait());
    let _ = sh_when_free(&matchlock).success();

    let reader = hold("@data:/data:ro");
    let _ = sh(&matchlock, &["@data:/data:ro"], "true").success();
    assert_refused(&sh(&matchlock, &["@data:/data"], "true"), busy);
    let _ = matchlock.run(&["volume", "cp", "data", "copy"]).success();
    reader.signal(Signal::TERM);
    drop(reader.wait());
    let _ = matchlock.run(&["volume", "rm", "data", "copy"]).success();
    matchlock.assert_nothing_left();
}

#[test]
fn volumes_are_created_listed_copied_and_removed() {
    let matchlock = Matchlock::without_images();
    let run = |words: &[&str]| matchlock.run(&[&["volume"], words].concat());
    let says = |words: &[&str], text: &str| assert_eq!(run(words).success().stdout_text(), text);
    let fails = |words: &[&str], code: i32, text: &str| {
        let output = run(words);
        assert_eq!((output.code, output.stdout_text().as_str()), (Some(code), ""), "{words:?}");
        assert!(output.stderr_text().contains(text), "{text:?} in {}", output.stderr_text());
    };
    let json =
        |output: Output| -> serde_json::Value { serde_json::from_slice(&output.success().stdout).unwrap() };

    assert_eq!(json(run(&["ls", "--json"])), serde_json::json!([]));
    says(&["create", "data"], "Created volume data (10240 MB)\n");
    let file = |name: &str| path(&matchlock, name).to_str().unwrap().to_owned();
    let small = serde_json::json!({ "name": "small", "size": "16.0 MB", "path": file("small") });
    assert_eq!(json(run(&["create", "small", "--size", "16", "--json"])), small);
    fails(&["create", "data", "--size", "32"], 1, "named volume already exists");
    let data = serde_json::json!({ "name": "data", "size": "10240.0 MB", "path": file("data") });
    assert_eq!(json(run(&["list", "--json"])), serde_json::json!([data, small]));
    let table = run(&["ls"]).success().stdout_text();
    let rows: Vec<Vec<_>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "SIZE", "TAKEN", "PATH"]);
    assert_eq!((rows[1][0], rows[1][1], rows[2][0]), ("data", "10240.0", "small"), "{table}");

    says(&["cp", "small", "twin"], "Copied volume small to twin\n");
    fails(&["copy", "small", "data"], 1, "named volume already exists");
    fails(&["cp", "missing", "new"], 1, "named volume not found");
    says(&["rm", "small", "twin"], "Removed volume small\nRemoved volume twin\n");
    fails(&["remove", "small"], 1, "named volume not found");
    for wrong in ["../x", ".x", "a/b", ""] {
        fails(&["create", wrong], 2, "cannot be the name of a volume");
    }
    fails(&["create", "tiny", "--size", "15"], 2, "--size");
    assert_eq!(fs::read_dir(matchlock.home().join("volumes")).unwrap().count(), 1);
    matchlock.assert_nothing_left();
}

#[test]
fn a_copy_has_the_files_and_a_life_of_its_own() {
    let matchlock = with_volume();
    let _ = sh(&matchlock, &["@data:/data"], "echo both > /data/file").success();
    let _ = matchlock.run(&["volume", "cp", "data", "copy"]).success();
    let line = "cat /copy/file; echo changed > /copy/file; cat /data/file";
    let output = sh(&matchlock, &["@copy:/copy", "@data:/data"], line).success();
    assert_eq!(output.stdout_text(), "both\nboth\n");
    assert!(path(&matchlock, "copy").metadata().unwrap().blocks() * 512 < 16 << 20);
}

#[test]
fn disks_can_be_mounted_inside_each_other_in_any_order() {
    let matchlock = with_volume();
    let _ = matchlock.run(&["volume", "create", "inner", "--size", "16"]).success();
    let disks = ["@inner:/mnt/outer/deep/inner", "@data:/mnt/outer"];
    let _ = sh(&matchlock, &disks, "echo outer > /mnt/outer/file; echo inner > /mnt/outer/deep/inner/file")
        .success();
    for flags in [&[][..], &["--privileged"]] {
        let line = "cat /mnt/outer/file /mnt/outer/deep/inner/file";
        let output = matchlock.run(&arguments(BUSYBOX, &disks, flags, line)).success();
        assert_eq!(output.stdout_text(), "outer\ninner\n", "{flags:?}");
    }
    let output = sh(&matchlock, &["@data:/d", "@inner:/i"], "cat /i/file; ls /d/deep/inner").success();
    assert_eq!(output.stdout_text(), "inner\n", "the inner disk's file is not on the outer one");
    assert_clean(&path(&matchlock, "data"));
}

/// An image whose links lead to other places than their names say.
fn image_with_links(matchlock: &Matchlock, links: &[(&str, &str)]) {
    let mut layer = tar::Builder::new(Vec::new());
    for (name, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, name, target).unwrap();
    }
    let busybox = fs::read(cache::tar(BUSYBOX)).unwrap();
    let image = Layout::build(&[&busybox, &layer.into_inner().unwrap()], &serde_json::json!({}));
    let _ = matchlock.run(&["image", "import", "linked", image.path().to_str().unwrap()]).success();
}

#[test]
fn a_link_of_the_image_leads_a_disk_nowhere_else() {
    let matchlock = Matchlock::without_images();
    let links = [
        ("up", "../../../../.."),
        ("agent", "../../../scratch"),
        ("kernel", "/proc/sys"),
        ("devices", "dev"),
        ("magic", "/proc/1/root"),
        ("dangling", "/nowhere"),
        ("whole", "tmp"),
        ("part", "/whole"),
    ];
    image_with_links(&matchlock, &links);
    let _ = matchlock.run(&["volume", "create", "data", "--size", "16"]).success();
    let run = |target: &str, line: &str| {
        let disk = format!("@data:{target}");
        matchlock.run(&arguments("linked", &[&disk], &[], line))
    };
    for target in ["/up", "/kernel", "/devices", "/magic", "/dangling", "/etc/passwd", "/agent"] {
        assert_refused(&run(target, "true"), &format!("cannot mount a disk at {target}"));
    }
    assert_clean(&path(&matchlock, "data"));
    // Links to places of the image's own are followed, as they are by whoever uses the disk.
    for (target, place) in [("/whole", "/tmp"), ("/part/there", "/tmp/there")] {
        let line =
            format!("echo x > {target}/file; cat {place}/file; mount | grep ' type ext4' | cut -d ' ' -f 3");
        assert_eq!(run(target, &line).success().stdout_text(), format!("x\n{place}\n"));
    }
    matchlock.assert_nothing_left();
}

#[test]
fn two_disks_never_hide_each_other() {
    let matchlock = Matchlock::without_images();
    image_with_links(&matchlock, &[("a", "b")]);
    for name in ["one", "two"] {
        let _ = matchlock.run(&["volume", "create", name, "--size", "16"]).success();
    }
    let run = |disks: &[&str]| matchlock.run(&arguments("linked", disks, &[], "true"));
    let _ = run(&["@one:/b", "@two:/c"]).success();
    assert_refused(&run(&["@one:/b", "@two:/a"]), "it would hide the disk at /b");
    // Both were mounted, and one was in its place already.
    assert_clean(&path(&matchlock, "one"));
    assert_clean(&path(&matchlock, "two"));
    assert_refused(&run(&["@one:/b", "@two:/b/"]), "two disks are to be mounted at /b");
    assert_refused(&run(&["@one:/b", "@one:/c"]), "attached twice");
}

#[test]
fn device_nodes_on_a_disk_open_nothing() {
    let matchlock = with_volume();
    let make = "mknod /data/vda b 253 0 && mknod /data/vdb b 254 0";
    let _ = matchlock.run(&arguments(BUSYBOX, &["@data:/data"], &["--privileged"], make)).success();
    let line = "for node in vda vdb; do head -c 1 /data/$node 2>/dev/null && echo opened; done; echo end";
    for flags in [&[][..], &["--privileged"]] {
        let output = matchlock.run(&arguments(BUSYBOX, &["@data:/data"], flags, line)).success();
        assert_eq!(output.stdout_text(), "end\n", "{flags:?}");
    }
}

#[test]
fn what_is_no_ext4_file_system_is_named_and_explained() {
    let matchlock = with_volume();
    let zeros = matchlock.user_home().join("zeros");
    File::create(&zeros).unwrap().set_len(1 << 20).unwrap();
    let refused = sh(&matchlock, &[&format!("{}:/mnt", zeros.display())], "true");
    assert_refused(&refused, &format!("the disk {} is not an ext4 file system", zeros.display()));
    assert!(refused.stderr_text().contains("hint: make one with `mkfs.ext4"), "{}", refused.stderr_text());
    assert_refused(&sh(&matchlock, &["@missing:/mnt"], "true"), "named volume not found");
    assert_refused(&sh(&matchlock, &["/nonexistent:/mnt"], "true"), "cannot use the disk /nonexistent");

    // A superblock that the host takes, and nothing behind it that the guest could.
    let damaged = own_disk(&matchlock, "damaged");
    File::options().write(true).open(&damaged).unwrap().write_all_at(&vec![0xA5; 256 << 10], 2048).unwrap();
    let refused = sh(&matchlock, &["@data:/data", &format!("{damaged}:/mnt/here")], "true");
    assert_refused(&refused, "the file system on the disk for /mnt/here is damaged");
    // Mounted before the other one failed.
    assert_clean(&path(&matchlock, "data"));
    let only_magic = own_disk(&matchlock, "magic");
    let disk = File::options().write(true).open(&only_magic).unwrap();
    disk.write_all_at(&vec![0; 1024], 1024).unwrap();
    disk.write_all_at(&[0x53, 0xEF], 1024 + 0x38).unwrap();
    let refused = sh(&matchlock, &[&format!("{only_magic}:/mnt")], "true");
    assert_refused(&refused, "the disk for /mnt is not an ext4 file system");

    for wrong in
        ["data.ext4", "@data:mnt", "@data:/", "@data:/proc/x", "@data:/a/../b", "@da/ta:/x", "a:/b:rx"]
    {
        let output = sh(&matchlock, &[wrong], "true");
        assert_eq!(output.code, Some(2), "{wrong}: {}", output.stderr_text());
    }
    matchlock.assert_nothing_left();
}

#[test]
fn space_that_the_guest_gives_back_is_given_back_to_the_host() {
    let matchlock = with_volume();
    let taken = || path(&matchlock, "data").metadata().unwrap().blocks() * 512;
    let _ = sh(&matchlock, &["@data:/data"], "head -c 40000000 /dev/urandom > /data/big").success();
    assert!(taken() > 40_000_000, "{}", taken());
    let trim =
        arguments(BUSYBOX, &["@data:/data"], &["--privileged"], "rm /data/big && sync && fstrim /data");
    let _ = matchlock.run(&trim).success();
    assert!(taken() < 10_000_000, "{}", taken());
}

/// QEMU of this run: a descendant of it with that name.
fn vmm(of: &Running) -> Pid {
    let stat = |pid: i32| -> Option<(String, i32)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (front, back) = stat.rsplit_once(") ")?;
        Some((front.split_once('(')?.1.to_owned(), back.split(' ').nth(1)?.parse().ok()?))
    };
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_descendant = |pid: i32| {
        std::iter::successors(Some(pid), |pid| Some(stat(*pid)?.1)).any(|pid| pid == of.pid().as_raw_pid())
    };
    let found = pids
        .filter(|pid| stat(*pid).is_some_and(|(name, _)| name.starts_with("qemu")))
        .find(|pid| is_descendant(*pid));
    Pid::from_raw(found.expect("the VM runs")).expect("a process number is not 0")
}

/// As when the host's kernel kills the VMM for lack of memory.
#[test]
fn a_vmm_killed_while_it_writes_loses_nothing_that_was_synced() {
    let matchlock = with_volume();
    let line = "n=0; while :; do n=$((n+1)); head -c 100000 /dev/urandom > /data/part; sync; \
                mv /data/part /data/$((n % 20)); sync; echo $n > /data/count.new; mv /data/count.new /data/count; \
                sync; echo $n; done";
    for round in 1..=3 {
        let running = matchlock.spawn(&arguments(BUSYBOX, &["@data:/data"], &[], line));
        running.wait_for_stdout(&format!("\n{}\n", 5 * round));
        kill_process(vmm(&running), Signal::KILL).unwrap();
        let killed = running.wait();
        assert_eq!(killed.code, Some(125), "{}", killed.stderr_text());
        let data = path(&matchlock, "data");
        assert!(is_unrecovered(&data), "it was killed in the middle");
        assert_refused(&sh(&matchlock, &["@data:/data:ro"], "true"), "was not unmounted cleanly");

        // What e2fsck makes of it, on a copy: the journal and nothing else is needed.
        let copy = matchlock.user_home().join("copy");
        fs::copy(&data, &copy).unwrap();
        let (_, recovered) = e2fsck(&["-p"], &copy);
        assert!(recovered.contains("recovering journal"), "{recovered}");
        assert_clean(&copy);

        // What the next run makes of it.
        let output = sh(&matchlock, &["@data:/data"], "cat /data/count; cat /data/[0-9]* | wc -c").success();
        let text = output.stdout_text();
        let numbers: Vec<usize> = text.lines().map(|line| line.trim().parse().unwrap()).collect();
        let promised: usize = killed.stdout_text().lines().last().unwrap().parse().unwrap();
        assert!(numbers[0] >= promised, "{promised} was synced, {numbers:?} is there");
        assert_eq!(numbers[1] % 100_000, 0, "a renamed file is whole");
        assert_clean(&data);
    }
    matchlock.assert_nothing_left();
}

#[test]
fn a_disk_is_the_same_wherever_its_sandbox_is_started_again() {
    let matchlock = Matchlock::new();
    fs::create_dir_all(matchlock.user_home()).unwrap();
    let disk = own_disk(&matchlock, "data.img");
    let within = |arguments: &[&str]| {
        let mut command = matchlock.command(arguments);
        let output = command.current_dir(Path::new(&disk).parent().unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let run = ["run", "-d", "--image", BUSYBOX, "--disk", "data.img:/data", "--", "sleep", "1000"];
    let id = within(&run);
    let _ = matchlock.run(&["exec", &id, "--", "sh", "-c", "echo kept > /data/file"]).success();
    let _ = matchlock.run(&["stop", "-t", "0s", &id]).success();
    let _ = matchlock.run(&["start", &id]).success();
    assert_eq!(matchlock.run(&["exec", &id, "cat", "/data/file"]).success().stdout_text(), "kept\n");
    let _ = matchlock.run(&["kill", &id]).success();
}

/// A terminal that is closed says so by its shell and by the kernel; and there are wrappers that pass on what
/// the terminal has sent already.
#[test]
fn a_signal_that_comes_twice_leaves_the_guest_the_time_to_unmount() {
    let matchlock = with_volume();
    let line = "head -c 3000000 /dev/urandom > /data/file";
    let running = matchlock.spawn(&arguments(BUSYBOX, &["@data:/data"], &["--rm=false"], line));
    running.wait_for_stderr("has ended");
    for signal in [Signal::HUP, Signal::TERM, Signal::HUP] {
        kill_process(running.pid(), signal).unwrap();
        std::thread::sleep(Duration::from_millis(3));
    }
    let _ = running.wait().success();
    assert_clean(&path(&matchlock, "data"));
}

#[test]
fn a_killed_copy_leaves_nothing() {
    let matchlock = with_volume();
    let _ = sh(&matchlock, &["@data:/data"], "head -c 50000000 /dev/urandom > /data/big").success();
    for delay in [0, 2, 5, 10, 20, 40, 80].map(Duration::from_millis) {
        let copying = matchlock.spawn(&["volume", "cp", "data", "copy"]);
        std::thread::sleep(delay);
        let signalled = Instant::now();
        let _ =
            kill_process(copying.pid(), if delay.as_millis() % 4 == 0 { Signal::KILL } else { Signal::INT });
        let _ = copying.wait();
        assert!(signalled.elapsed() < Duration::from_secs(5));
        if path(&matchlock, "copy").exists() {
            assert_clean(&path(&matchlock, "copy"));
            let _ = matchlock.run(&["volume", "rm", "copy"]).success();
        }
        assert_eq!(fs::read_dir(matchlock.home().join("volumes")).unwrap().count(), 1);
    }
}
