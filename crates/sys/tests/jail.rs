//! What a jailed process can still do, tried by shells inside the jail.
#![expect(clippy::unwrap_used, reason = "in a test, a failure is the result")]

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use sys::jail::{Jail, Standing, Wall};
use sys::process::{Command, Process, SpawnError, Status, Tap, try_namespaces};

const SYSTEM: [&str; 5] = ["/usr/bin", "/usr/lib", "/bin", "/lib", "/lib64"];

fn jail() -> Jail {
    Jail {
        readable: SYSTEM.iter().map(PathBuf::from).collect(),
        devices: vec![PathBuf::from("/dev/null")],
        address_space: 1 << 30,
        file_size: 1 << 20,
        open_files: 32,
        ..Jail::default()
    }
}

struct Shell {
    process: Process,
    output: PipeReader,
    status: mpsc::Receiver<Status>,
}

fn bash(script: &str, jail: Jail) -> Shell {
    let (output, writer) = std::io::pipe().unwrap();
    let nothing = File::open("/dev/null").unwrap();
    let descriptors: Vec<OwnedFd> = vec![nothing.into(), writer.try_clone().unwrap().into(), writer.into()];
    let args = vec!["-c".into(), script.into()];
    let (ended, status) = mpsc::channel();
    let environment = vec!["GIVEN=this alone".into()];
    let command = Command { program: "/bin/bash".into(), args, environment, descriptors, jail, tap: None };
    let process = command.spawn(move |status| ended.send(status).unwrap_or_default()).unwrap();
    Shell { process, output, status }
}

/// Runs a script in the jail, and returns all it printed.
fn inside(script: &str, jail: Jail) -> String {
    let mut shell = bash(script, jail);
    let mut output = String::new();
    shell.output.read_to_string(&mut output).unwrap();
    output
}

#[test]
fn every_wall_is_reported_and_stands() {
    let shell = bash("sleep 10", jail());
    for wall in [
        Wall::DiesWithOwner,
        Wall::NoPrivileges,
        Wall::SystemCalls,
        Wall::NothingInherited,
        Wall::Limits,
        Wall::Identity,
        Wall::Namespaces,
        Wall::Files,
    ] {
        let mut layers = shell.process.layers().iter().filter(|layer| layer.wall == wall);
        let standing = &layers.next().unwrap_or_else(|| panic!("{wall:?} is missing")).standing;
        assert!(layers.next().is_none(), "{wall:?} is there twice");
        // Where a wall cannot be had, the other tests here would say nothing about it.
        let enough = [Standing::Holds, Standing::Partial];
        assert!(enough.contains(standing), "{wall:?}: {standing:?}; run this on a host that has it");
    }
}

#[test]
fn that_namespaces_can_be_had_is_known_without_starting_a_program() {
    try_namespaces().unwrap();
}

#[test]
fn a_jailed_process_reads_and_writes_no_files_of_the_host() {
    let secret = std::env::temp_dir().join(format!("jail-test-{}", std::process::id()));
    std::fs::write(&secret, "hidden").unwrap();
    let path = secret.to_str().unwrap();
    let output = inside(
        &format!(
            "cat /etc/passwd; cat {path}; echo x >> {path}; echo x >> /tmp/jail-was-here; ls /home; ls /etc; \
             mkdir /tmp/jail-was-here; cat /proc/1/environ; echo done"
        ),
        jail(),
    );
    assert!(output.ends_with("done\n"), "{output}");
    assert!(!output.contains("root:") && !output.contains("hidden"), "{output}");
    assert_eq!(output.matches("ermission denied").count(), 8, "{output}");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "hidden");
    std::fs::remove_file(secret).unwrap();
}

#[test]
fn a_jailed_process_has_no_network_and_no_sockets_at_all() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let output = inside(&format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected; echo done"), jail());
    assert!(output.contains("Operation not permitted") && !output.contains("connected"), "{output}");
    for call in ["socket(S, 1, 1, 0)", "socketpair(S, T, 1, 2, 0)"] {
        let unix = format!("perl -e '{call} ? print \"open\" : print \"$!\"'");
        assert_eq!(inside(&unix, jail()), REFUSED, "{call}");
    }
}

/// What a denied system call is answered with.
const REFUSED: &str = "Operation not permitted";

/// Makes system calls in the jail, their arguments written in Perl, and returns what each was answered with.
/// The file is `$path`, and open for reading as `$fd`.
fn answers(calls: &[(i64, &str)], file: &Path, mut jail: Jail) -> Vec<String> {
    let calls: Vec<_> = calls.iter().map(|(number, arguments)| format!("[{number}, {arguments}]")).collect();
    let script = format!(
        r#"perl -e 'my ($path, $name, $value) = ("{path}", "user.jail", "x");
        open(my $file, "<", $path) or die "no file: $!"; my $fd = fileno($file);
        my $attribute = pack("QLL", unpack("J", pack("P", $value)), 1, 0); my $attributes = pack("x24");
        for ({calls}) {{ my ($number, @arguments) = @$_; print syscall($number, @arguments) == -1 ? "$!" : "done", "\n" }}'"#,
        path = file.display(),
        calls = calls.join(", "),
    );
    jail.readable.push(file.to_owned());
    inside(&script, jail).lines().map(str::to_owned).collect()
}

/// The calls are made by the owner of the file, and done without the filter.
#[test]
fn a_jailed_process_cannot_chmod_chown_label_age_or_truncate_its_users_files() {
    // The newest are not in libc.
    const FCHMODAT2: i64 = 452;
    const SETXATTRAT: i64 = 463;
    const REMOVEXATTRAT: i64 = 466;
    const FILE_SETATTR: i64 = 469;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "content").unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let before = file.metadata().unwrap();
    let calls = &[
        (libc::SYS_truncate, "$path, 0"),
        (libc::SYS_openat, "-100, $path, 01000"),
        (libc::SYS_fchmod, "$fd, 0777"),
        (libc::SYS_fchmodat, "-100, $path, 0777"),
        (FCHMODAT2, "-100, $path, 0777, 0"),
        (libc::SYS_fchown, "$fd, -1, -1"),
        (libc::SYS_fchownat, "-100, $path, -1, -1, 0"),
        (libc::SYS_setxattr, "$path, $name, $value, 1, 0"),
        (libc::SYS_lsetxattr, "$path, $name, $value, 1, 0"),
        (libc::SYS_fsetxattr, "$fd, $name, $value, 1, 0"),
        (SETXATTRAT, "-100, $path, 0, $name, $attribute, 16"),
        (libc::SYS_removexattr, "$path, $name"),
        (libc::SYS_lremovexattr, "$path, $name"),
        (libc::SYS_fremovexattr, "$fd, $name"),
        (REMOVEXATTRAT, "-100, $path, 0, $name"),
        (libc::SYS_utimensat, "-100, $path, 0, 0"),
        (libc::SYS_utimensat, "$fd, 0, 0, 0"),
        (FILE_SETATTR, "-100, $path, $attributes, 24, 0"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_open, "$path, 01000"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_creat, "$path, 0"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_chmod, "$path, 0777"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_chown, "$path, -1, -1"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_lchown, "$path, -1, -1"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_utime, "$path, 0"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_utimes, "$path, 0"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_futimesat, "-100, $path, 0"),
    ];
    let answers = answers(calls, &file, Jail { keeps_user: true, ..jail() });
    assert_eq!(answers.len(), calls.len(), "{answers:?}");
    for (call, answer) in calls.iter().zip(answers) {
        assert_eq!(answer, REFUSED, "{call:?}");
    }
    let after = file.metadata().unwrap();
    assert_eq!((after.len(), after.mode(), after.ctime()), (before.len(), before.mode(), before.ctime()));
}

/// No namespace of its own, where it would have all capabilities: by none of the ways to make one.
#[test]
fn a_jailed_process_clones_nothing_into_new_namespaces() {
    // An impossible combination, with which nothing is cloned in any case.
    let impossible = libc::CLONE_SIGHAND;
    let namespaces = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let flags = namespaces.map(|namespace| format!("{}, 0, 0, 0, 0", namespace | impossible));
    let file = Path::new("/bin/true");
    let calls = flags.each_ref().map(|flags| (libc::SYS_clone, flags.as_str()));
    assert_eq!(answers(&calls, file, jail()), [REFUSED; 7]);
    let without = format!("{impossible}, 0, 0, 0, 0");
    assert_eq!(answers(&[(libc::SYS_clone, &without)], file, jail()), ["Invalid argument"]);
}

/// A refusal would not make them fall back: threads could not be started any more.
#[test]
fn calls_whose_flags_no_filter_sees_are_missing_in_a_jail_and_threads_are_not() {
    let calls = [(libc::SYS_clone3, "0, 0"), (libc::SYS_openat2, "-100, $path, 0, 0")];
    assert_eq!(answers(&calls, Path::new("/bin/true"), jail()), ["Function not implemented"; 2]);
    let script =
        "python3 -Sc 'import threading; threading.Thread(target=lambda: print(\"started\")).start()'";
    assert_eq!(inside(script, jail()), "started\n");
}

/// The same calls by other numbers, on kernels that have x32.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_jailed_process_that_makes_x32_calls_is_killed() {
    let shell = bash("exec perl -e 'syscall(0x40000000 | 39)'", jail());
    assert_eq!(shell.status.recv(), Ok(Status::Signal(libc::SIGSYS)));
}

#[test]
fn a_jailed_process_inherits_nothing_but_what_it_is_given() {
    let leaked = File::open("/etc/hostname").unwrap();
    // Without close-on-exec, as careless code leaves descriptors.
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let script = "env; echo \"cwd $PWD\"; ulimit -c; ulimit -n; umask; \
                  perl -MPOSIX -e 'for (3..31) { my $f = dup($_); $f && print(\"open $_\\n\") && close $f }'; echo done";
    let output = inside(script, jail());
    let variables: Vec<&str> = output.lines().take_while(|line| !line.starts_with("cwd")).collect();
    // What bash makes itself.
    let own = |line: &str| ["PWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own));
    let given: Vec<&str> = variables.into_iter().filter(|line| !own(line)).collect();
    assert_eq!(given, ["GIVEN=this alone"], "{output}");
    assert!(output.ends_with("cwd /\n0\n32\n0077\ndone\n"), "{output}");
}

#[test]
fn a_jailed_process_has_no_privileges_and_gets_none() {
    let mut jail = jail();
    jail.readable.push("/proc".into());
    let script = "id -u; while read -r line; do echo \"$line\"; done < /proc/self/status; \
                  mount -t tmpfs x /mnt || unshare -n true || echo denied";
    let output = inside(script, jail);
    assert!(!output.starts_with("0\n"), "not root: {output}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let none = format!("{set}:\t0000000000000000");
        assert!(output.contains(&none), "{none} in {output}");
    }
    assert!(output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2"), "{output}");
    assert!(output.ends_with("denied\n"), "{output}");
}

#[test]
fn a_jailed_process_is_alone() {
    let ours = std::process::id();
    let output = inside(&format!("echo $$; kill -0 {ours} && echo reached; echo done"), jail());
    assert!(output.starts_with("1\n"), "the first of its own PID namespace: {output}");
    assert!(output.ends_with("done\n") && !output.contains("reached"), "{output}");
}

#[test]
fn a_jailed_process_cannot_take_more_memory_than_it_was_given() {
    let output = inside("x=$(head -c 1200000000 /dev/zero | tr '\\0' x); echo \"got ${#x}\"", jail());
    assert!(!output.contains("got 1200000000"), "{output}");
}

#[test]
fn ended_processes_are_reaped_and_dropped_ones_killed() {
    let shell = bash("exit 7", jail());
    assert_eq!(shell.status.recv_timeout(Duration::from_secs(10)), Ok(Status::Code(7)));
    shell.process.kill();
    let shell = bash("sleep 1000", jail());
    let folder = PathBuf::from(format!("/proc/{}", shell.process.pid()));
    assert!(folder.exists());
    drop(shell.process);
    assert!(!folder.exists(), "not even a zombie is left");
    assert_eq!(shell.status.recv(), Ok(Status::Signal(9)));
}

#[test]
fn what_cannot_be_executed_is_an_error() {
    let spawn = |program: &str, args: &[&str]| {
        let args = args.iter().map(Into::into).collect();
        let command = Command {
            program: program.into(),
            args,
            environment: Vec::new(),
            descriptors: Vec::new(),
            jail: jail(),
            tap: None,
        };
        command.spawn(|_| ()).map(|_| ()).unwrap_err()
    };
    let error =
        |kind| move |error: &SpawnError| matches!(error, SpawnError::Exec(_, error) if error.kind() == kind);
    assert!(error(std::io::ErrorKind::NotFound)(&spawn("/usr/bin/no-such-program", &[])));
    let outside = std::env::current_exe().unwrap();
    assert!(error(std::io::ErrorKind::PermissionDenied)(&spawn(outside.to_str().unwrap(), &[])));
    assert!(matches!(spawn("/bin/true", &["a\0b"]), SpawnError::Argument(_)));
}

/// Root drops to nobody, everybody else makes a user namespace: both ways are tried here.
#[test]
fn the_walls_stand_for_ordinary_users_too() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = std::env::temp_dir().join(format!("jail-test-as-user-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let copy = folder.join("jail");
    // Written by nobody that another test's child could inherit it from: it is executed.
    let copied = std::process::Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&copy).status();
    assert!(copied.unwrap().success());
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=12345", "--regid=12345", "--clear-groups"])
        .arg(&copy)
        // Where /dev/net/tun is not for everybody. Users' interfaces are tested in the lab.
        .args(["--skip", "an_interface"])
        .output()
        .expect("setpriv (util-linux) is needed for this test");
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Opens the interface as a VMM does, asks the host's kernel in every way that it usually answers, and
/// prints the answers; then what comes from us.
const GUEST: &str = r"
import fcntl, os, select, struct
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', b'tap0', 0x5002))
guest, everybody = bytes.fromhex('026d61746368'), b'\xff' * 6
def send(frame): os.write(tap, bytes(10) + frame)
for address in ('64400001', '7f000001', 'e0000001', 'ffffffff'):
    send(everybody + guest + bytes.fromhex('08060001080006040001' + '026d61746368' + '64400002' + '000000000000' + address))
neighbour = bytes.fromhex('6000000000203aff' + 'fe80000000000000006d61fffe746368' + 'ff020000000000000000000000000001' + '8700000000000000' + 'fe80000000000000006d61fffe746301' + '0101026d61746368')
send(bytes.fromhex('333300000001') + guest + b'\x86\xdd' + neighbour)
while select.select([tap], [], [], 0.5)[0]:
    print('answer', os.read(tap, 70000)[10:].hex())
print('ready', flush=True)
print(os.read(tap, 70000)[10:].hex())
";

#[test]
fn an_interface_reaches_nobody_but_us_and_the_kernel_behind_it_is_silent() {
    let mut jail = jail();
    jail.devices.push("/dev/net/tun".into());
    jail.keeps_user = true;
    let (output, writer) = std::io::pipe().unwrap();
    let nothing = File::open("/dev/null").unwrap();
    let descriptors: Vec<OwnedFd> = vec![nothing.into(), writer.try_clone().unwrap().into(), writer.into()];
    let args = vec!["-c".into(), GUEST.into()];
    let tap = Some(Tap { mtu: 65_520 });
    let command =
        Command { program: "/usr/bin/python3".into(), args, environment: Vec::new(), descriptors, jail, tap };
    let mut process = command.spawn(|_| ()).unwrap();
    let frames = process.take_frames().unwrap();
    assert!(process.take_frames().is_none());
    let mut output = BufReader::new(output).lines().map(Result::unwrap);
    assert_eq!(output.next().as_deref(), Some("ready"), "{:?}", output.collect::<Vec<_>>());
    let mut kinds = Vec::new();
    let mut frame = [0; 2048];
    while let Ok((length, _)) = rustix::net::recv(&frames, &mut frame[..], RecvFlags::DONTWAIT) {
        assert!(length >= 42, "{:?}", &frame[..length]);
        kinds.push([frame[12], frame[13]]);
    }
    assert_eq!(
        kinds,
        [[8, 6], [8, 6], [8, 6], [8, 6], [0x86, 0xdd]],
        "what was sent, and nothing of the kernel's"
    );
    let hello = [[0xff; 6], [2; 6]].concat().into_iter().chain([0x88, 0xb5, 1, 2, 3]).collect::<Vec<u8>>();
    rustix::net::send(&frames, &hello, SendFlags::empty()).unwrap();
    assert_eq!(output.next().as_deref(), Some("ffffffffffff02020202020288b5010203"));
}

/// Whoever may listen may not connect, nor send anything without a connection.
#[test]
fn a_jailed_process_that_listens_connects_to_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let outside = UnixListener::bind(folder.path().join("outside")).unwrap();
    let mut jail = jail();
    let inside = folder.path().join("in");
    std::fs::create_dir(&inside).unwrap();
    std::fs::set_permissions(&inside, Permissions::from_mode(0o777)).unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    jail.listens_in = Some(inside.clone());
    let script = format!(
        "import socket, sys; s = socket.socket(socket.AF_UNIX)
def refused(what):
    try: what(); print('done')
    except OSError as error: print(error.errno)
refused(lambda: s.connect('{outside}'))
refused(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
refused(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
refused(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
refused(lambda: socket.socket(socket.AF_INET))
refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
refused(lambda: socket.socket(40))
refused(lambda: socket.socket(socket.AF_UNIX).bind('{outside}-2'))
s.bind('{inside}/socket'); s.listen(); print('listens', flush=True)
print(s.accept()[0].recv(5))",
        outside = folder.path().join("outside").display(),
        inside = inside.display(),
    );
    let (output, writer) = std::io::pipe().unwrap();
    let nothing = File::open("/dev/null").unwrap();
    let descriptors: Vec<OwnedFd> = vec![nothing.into(), writer.try_clone().unwrap().into(), writer.into()];
    let args = vec!["-c".into(), script.into()];
    let command = Command {
        program: "/usr/bin/python3".into(),
        args,
        environment: Vec::new(),
        descriptors,
        jail,
        tap: None,
    };
    let process = command.spawn(|_| ()).unwrap();
    let mut output = BufReader::new(output).lines().map(Result::unwrap);
    let said: Vec<_> = output.by_ref().take_while(|line| line != "listens").collect();
    assert_eq!(said, ["1", "1", "1", "1", "1", "1", "1", "13"], "EPERM of the filter, EACCES of Landlock");
    UnixStream::connect(inside.join("socket")).unwrap().write_all(b"hello").unwrap();
    assert_eq!(output.next().as_deref(), Some("b'hello'"));
    drop((process, outside));
}
