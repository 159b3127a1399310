//! What a tenure leaves, whoever comes after it.

use super::*;

fn begin(home: &Path, keep: bool) -> (Home, Arc<State>, Tenure) {
    let home = Home::open(home).unwrap();
    let state = Arc::new(State::open(&home.database()).unwrap());
    let tenure = Tenure::begin(&home, &state, |id| NewSandbox {
        id,
        name: None,
        image: "image".to_owned(),
        backend: "qemu".to_owned(),
        keep,
        spec: "{}".to_owned(),
        owner_pid: None,
    });
    (home, state, tenure.unwrap())
}

#[test]
fn dropping_one_that_never_ran_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (home, state, mut tenure) = begin(folder.path(), true);
    let id = tenure.id();
    tenure.advance(Phase::Created).unwrap();
    assert!(home.is_owned(id));
    drop(tenure);
    assert!(!home.directory(id).exists());
    assert_eq!(state.record(id).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn one_that_ran_and_is_kept_keeps_its_directory_until_it_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (home, state, mut tenure) = begin(folder.path(), true);
    let (id, socket) = (tenure.id(), tenure.directory().join("socket"));
    for phase in [Phase::Created, Phase::Starting, Phase::Running] {
        tenure.advance(phase).unwrap();
    }
    tenure.plan(Resource::Socket { path: socket.clone() }).unwrap();
    fs::write(&socket, "").unwrap();
    tenure.blame("it broke");
    assert_eq!(tenure.finish(), [Resource::Socket { path: socket.clone() }]);
    assert!(!socket.exists() && home.directory(id).exists());
    let record = state.record(id).unwrap();
    assert_eq!((record.phase, record.last_error.as_deref()), (Phase::Stopped, Some("it broke")));
    let mut tenure = Tenure::resume(&home, &state, id, None).unwrap();
    tenure.remove();
    tenure.finish();
    assert!(!home.directory(id).exists());
    assert_eq!(state.record(id).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn what_a_copied_state_directory_speaks_of_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (original, copy) = (folder.path().join("original"), folder.path().join("copy"));
    let (home, _state, mut tenure) = begin(&original, false);
    let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let start_time = process::start_time(process.id()).unwrap();
    tenure.plan(Resource::Process { pid: process.id(), start_time }).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").args([&original, &copy]).status();
    assert!(copied.unwrap().success());
    let copied = Home::open(&copy).unwrap();
    let state = Arc::new(State::open(&copied.database()).unwrap());
    Tenure::resume(&copied, &state, tenure.id(), None).unwrap().finish();
    assert!(!copied.directory(tenure.id()).exists());
    assert!(home.directory(tenure.id()).exists());
    assert!(process.try_wait().unwrap().is_none(), "it belongs to the original");
    drop(tenure);
    assert!(!process.wait().unwrap().success(), "and goes with that");
}
