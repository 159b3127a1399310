//! Images: from registries and archives into the store, and what a run makes of them.

use std::fs;
use std::process::Command;

use harness::cache::{self, BUSYBOX};
use harness::oci::Layout;
use harness::{Matchlock, Registry};
use serde_json::json;

/// The busybox root as a layer.
fn busybox() -> Vec<u8> {
    fs::read(cache::tar(BUSYBOX)).expect("the tar was just made")
}

/// A layer of files with their content; a name that ends in `/` is a directory.
fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if name.ends_with('/') { 0o755 } else { 0o644 });
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes()).expect("memory takes it");
    }
    tar.into_inner().expect("memory takes it")
}

/// An image that says something only if its configuration is honoured.
fn configured() -> Layout {
    Layout::build(
        &[&busybox()],
        &json!({
            "Env": ["GREETING=hello", "PATH=/bin"],
            "Entrypoint": ["/bin/sh", "-c", "echo $GREETING from $(id -un) in $(pwd): $0 $*"],
            "Cmd": ["by", "default"],
            "User": "user",
            "WorkingDir": "/work/dir",
            "Labels": { "org.example.a": "b" },
        }),
    )
}

#[test]
fn a_pulled_image_runs_as_it_is_configured_and_is_pulled_once() {
    let matchlock = Matchlock::without_images();
    let registry = Registry::start();
    let reference = registry.push(&configured(), "team/app:1");
    let first = matchlock.run(&["run", "--image", &reference]).success();
    assert_eq!(first.stdout_text(), "hello from user in /work/dir: by default\n");
    drop(registry);
    let second =
        matchlock.run(&["run", "--image", &reference, "-e", "GREETING=bye", "-u", "root", "--", "by", "me"]);
    assert_eq!(second.success().stdout_text(), "bye from root in /work/dir: by me\n");
    let gone = matchlock.run(&["run", "--pull=always", "--image", &reference]);
    assert_eq!(gone.code, Some(125), "{}", gone.stderr_text());
    matchlock.assert_nothing_left();
}

#[test]
fn pull_prints_digest_and_size_and_the_store_lists_it() {
    let matchlock = Matchlock::without_images();
    let registry = Registry::start();
    let reference = registry.push(&configured(), "app:1");
    let pulled = matchlock.run(&["pull", "-t", "mine", &reference]).success();
    let text = pulled.stdout_text();
    assert!(text.contains("Digest: sha256:") && text.contains("Size: "), "{text}");
    let list = matchlock.run(&["image", "ls"]).success().stdout_text();
    let lines: Vec<_> = list.lines().collect();
    let columns: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(columns, ["TAG", "SOURCE", "SIZE", "CREATED"]);
    assert!(lines[1].starts_with("mine:latest") && lines[1].contains(&reference), "{list}");
    let inspected = matchlock.run(&["image", "inspect", "mine"]).success().stdout_text();
    let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected["config"]["labels"]["org.example.a"], "b");
    let removed = matchlock.run(&["image", "rm", "mine"]).success();
    assert_eq!(removed.stdout_text(), "Removed mine:latest\n");
    let again = matchlock.run(&["image", "rm", "mine"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr_text().contains("mine"), "{}", again.stderr_text());
    let _ = matchlock.run(&["image", "gc"]).success();
    let layers = fs::read_dir(matchlock.cache().join("images/layers/sha256")).unwrap().count();
    assert_eq!(layers, 0);
}

#[test]
fn every_form_of_archive_can_be_imported_and_run() {
    let matchlock = Matchlock::without_images();
    let layout = configured();
    let folder = tempfile::tempdir().unwrap();
    let expect = |tag: &str, expected: &str, arguments: &[&str]| {
        let output = matchlock.run(&[&["run", "--image", tag], arguments].concat());
        assert_eq!(output.success().stdout_text(), expected, "{tag}");
    };
    for transport in ["docker-archive", "oci-archive"] {
        let archive = folder.path().join(transport);
        layout.export(transport, &archive);
        let _ = matchlock.run(&["image", "import", transport, archive.to_str().unwrap()]).success();
        expect(transport, "hello from user in /work/dir: by default\n", &[]);
        let _ =
            matchlock.run_with_input(&["image", "import", "piped"], fs::read(&archive).unwrap()).success();
        expect("piped", "hello from user in /work/dir: by default\n", &[]);
    }
    let _ = matchlock.run(&["image", "import", "folder", layout.path().to_str().unwrap()]).success();
    expect("folder", "hello from user in /work/dir: by default\n", &[]);
    let plain = folder.path().join("root.tar");
    fs::write(&plain, busybox()).unwrap();
    for (program, suffix) in [("gzip", "gz"), ("zstd", "zst")] {
        let packed = folder.path().join(format!("root.tar.{suffix}"));
        let output = Command::new(program).arg("-c").arg(&plain).output().unwrap();
        fs::write(&packed, output.stdout).unwrap();
        let _ = matchlock.run(&["image", "import", suffix, packed.to_str().unwrap()]).success();
        expect(suffix, "same\n", &["--", "echo", "same"]);
    }
    matchlock.assert_nothing_left();
}

#[test]
fn layers_hide_replace_and_remove_as_overlays_do() {
    let matchlock = Matchlock::without_images();
    let registry = Registry::start();
    let base =
        layer(&[("a/", ""), ("a/one", "1"), ("a/two", "2"), ("b/", ""), ("b/old", "x"), ("c", "file")]);
    let upper = layer(&[
        ("a/", ""),
        ("a/.wh.one", ""),
        ("a/three", "3"),
        ("b/", ""),
        ("b/.wh..wh..opq", ""),
        ("b/new", "y"),
        (".wh.c", ""),
    ]);
    let config = json!({ "Env": ["PATH=/bin"] });
    let look = ["--", "sh", "-c", "ls a b; ls -d c 2>/dev/null; cat a/two a/three b/new"];
    let few = registry.push(&Layout::build(&[&busybox(), &base, &upper], &config), "few:1");
    let expected = "a:\nthree\ntwo\n\nb:\nnew\n23y";
    let output = matchlock.run(&[&["run", "--image", &few], &look[..]].concat()).success();
    assert_eq!(output.stdout_text(), expected);
    // The same with more layers than a machine has disks for.
    let many: Vec<Vec<u8>> = (0..40).map(|number| layer(&[(&format!("n{number}"), "n")])).collect();
    let (busybox, mut layers) = (busybox(), Vec::new());
    layers.extend([&busybox[..], &base[..], &upper[..]]);
    layers.extend(many.iter().map(Vec::as_slice));
    let many = registry.push(&Layout::build(&layers, &config), "many:1");
    let output = matchlock.run(&[&["run", "--image", &many], &look[..]].concat()).success();
    assert_eq!(output.stdout_text(), expected);
    let output = matchlock
        .run(&["run", "--image", &many, "--", "sh", "-c", "ls -d n* | wc -l; id -un user"])
        .success();
    assert_eq!(output.stdout_text(), "40\nuser\n");
}

#[test]
fn credentials_come_from_dockers_configuration() {
    let matchlock = Matchlock::without_images();
    let registry = Registry::start_with_login();
    let reference = registry.push(&configured(), "private/app:1");
    let refused = matchlock.run(&["pull", &reference]);
    assert_eq!(refused.code, Some(1));
    let docker = matchlock.user_home().join(".docker");
    fs::create_dir(&docker).unwrap();
    let write = |user: &str, password: &str| {
        let mut auth = Command::new("base64");
        auth.arg("-w0").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut auth = auth.spawn().unwrap();
        std::io::Write::write_all(&mut auth.stdin.take().unwrap(), format!("{user}:{password}").as_bytes())
            .unwrap();
        let auth = String::from_utf8(auth.wait_with_output().unwrap().stdout).unwrap();
        let config = json!({ "auths": { registry.address(): { "auth": auth } } });
        fs::write(docker.join("config.json"), config.to_string()).unwrap();
    };
    write("somebody", "wrong-password");
    let wrong = matchlock.run(&["pull", &reference]);
    assert_eq!(wrong.code, Some(1));
    assert!(!wrong.stderr_text().contains("wrong-password"), "{}", wrong.stderr_text());
    write(harness::registry::USER, harness::registry::PASSWORD);
    let _ = matchlock.run(&["pull", &reference]).success();
}

#[test]
fn what_cannot_be_had_is_told_and_leaves_nothing() {
    let matchlock = Matchlock::without_images();
    let registry = Registry::start();
    let unknown = format!("{}/no/such:tag", registry.address());
    for reference in [unknown.as_str(), "127.0.0.1:1/unreachable", "no-such-host.invalid/app"] {
        let output = matchlock.run(&["pull", reference]);
        assert_eq!(output.code, Some(1), "{reference}");
        assert!(output.stderr_text().contains("error: "), "{}", output.stderr_text());
        assert!(output.stderr_text().contains("hint: "), "{}", output.stderr_text());
    }
    matchlock.assert_nothing_left();
}

#[test]
fn broken_and_hostile_archives_are_refused_and_leave_nothing() {
    let matchlock = Matchlock::without_images();
    let tar = busybox();
    let mut escaping = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_old();
    header.as_old_mut().name[..11].copy_from_slice(b"../../evil\0");
    header.set_size(0);
    header.set_mode(0o644);
    header.set_cksum();
    escaping.append(&header, std::io::empty()).unwrap();
    let cases: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("noise", &[0x5a; 10_000]),
        ("truncated", &tar[..tar.len() / 2]),
        ("escaping", &escaping.into_inner().unwrap()),
    ];
    for (name, bytes) in cases {
        let output = matchlock.run_with_input(&["image", "import", "bad"], bytes);
        assert_eq!(output.code, Some(1), "{name}: {}", output.stderr_text());
        assert!(output.stderr_text().starts_with("error: "), "{name}: {}", output.stderr_text());
    }
    let list = matchlock.run(&["image", "ls", "--json"]).success();
    assert_eq!(list.stdout_text().trim(), "[]");
    matchlock.assert_nothing_left();
}

#[test]
fn a_full_disk_during_an_import_is_told_and_leaves_nothing() {
    let matchlock = Matchlock::without_images();
    let tar = cache::tar(cache::DEBIAN_PYTHON);
    let cache = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=30m none {0} && MATCHLOCK_CACHE={0} \"$0\" image import big {1}; code=$?; find {0} -type f -size +1k; exit $code",
        cache.path().display(),
        tar.display()
    );
    let program = matchlock.command(&["version"]).get_program().to_owned();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(program)
        .output();
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("space"), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn two_runs_that_pull_the_same_image_at_once_both_work() {
    let matchlock = Matchlock::without_images();
    let registry = Registry::start();
    let reference = registry.push(&configured(), "app:1");
    let arguments = ["run", "--image", &reference];
    let runs = [matchlock.spawn(&arguments), matchlock.spawn(&arguments), matchlock.spawn(&arguments)];
    for run in runs {
        assert_eq!(run.wait().success().stdout_text(), "hello from user in /work/dir: by default\n");
    }
    matchlock.assert_nothing_left();
}
