//! The store itself: many users, damage, and what is thrown away.

use std::fs;
use std::io::Cursor;
use std::thread;
use std::time::{Duration, Instant};

use api::{Explain, Kind};
use image::import::Input;
use image::reference::Reference;
use image::store::{Cancel, GcReport, ImageRecord, Store, StoreError};
use tempfile::TempDir;

use crate::child;
use crate::example::{layers_in, noise, tar_of};
use crate::import::{folder, import_with, tag};

fn import(folder: &TempDir, name: &str, content: &str) -> ImageRecord {
    let tar = tar_of(&[(content, b"x")]);
    import_with(folder, Input::Stream(Box::new(Cursor::new(tar))), &tag(name)).unwrap()
}

fn store(folder: &TempDir) -> Store {
    Store::open(folder.path().join("store")).unwrap()
}

fn reference(name: &str) -> Reference {
    name.parse().unwrap()
}

/// Whether something is so within a second. A child that another test has just forked holds what is
/// dropped here for some moments more, until it executes its program.
pub(crate) fn soon(mut is_so: impl FnMut() -> bool) -> bool {
    let patience = Instant::now() + Duration::from_secs(1);
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() > patience {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn images_are_found_by_any_form_of_their_name() {
    let folder = folder();
    let image = import(&folder, "app", "etc/a");
    let store = store(&folder);
    for name in ["app", "app:latest", "docker.io/library/app", "index.docker.io/app:latest"] {
        assert_eq!(store.find(&reference(name)).unwrap().as_ref(), Some(&image), "{name}");
    }
    assert_eq!(store.find(&reference("app:2")).unwrap(), None);
    let other = import(&folder, "a-first", "etc/b");
    assert_eq!(store.list().unwrap(), [other, image]);
}

#[test]
fn a_new_image_takes_over_the_tag() {
    let folder = folder();
    import(&folder, "app", "etc/a");
    let new = import(&folder, "app", "etc/b");
    assert_eq!(store(&folder).list().unwrap(), [new]);
    assert!(soon(|| store(&folder).gc().unwrap().layers == 1));
}

#[test]
fn removing_what_is_not_there_is_an_error() {
    let folder = folder();
    let store = store(&folder);
    let error = store.remove(&reference("app:1")).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "image app:1 not found"));
    import(&folder, "app:1", "etc/a");
    store.remove(&reference("app:1")).unwrap();
    assert!(store.list().unwrap().is_empty());
    assert_eq!(layers_in(&folder.path().join("store")).len(), 1, "layers stay until gc");
}

#[test]
fn gc_takes_what_nobody_needs_and_nobody_uses() {
    let folder = folder();
    let store = store(&folder);
    let (kept, used, unused) =
        (import(&folder, "kept", "a"), import(&folder, "used", "b"), import(&folder, "unused", "c"));
    let run = store.open_layers(&used, &Cancel::default()).unwrap();
    store.remove(&used.tag).unwrap();
    store.remove(&unused.tag).unwrap();
    let tmp = folder.path().join("store/tmp");
    fs::write(tmp.join("1-1"), vec![1; 5000]).unwrap();
    let mut report = GcReport::default();
    let only_one_is_in_use = || {
        let round = store.gc().unwrap();
        report.layers += round.layers;
        report.merged += round.merged;
        report.temporaries += round.temporaries;
        report.freed += round.freed;
        report.in_use = round.in_use;
        report.in_use == 1
    };
    assert!(soon(only_one_is_in_use));
    assert!(report.freed > 5000);
    assert_eq!(report, GcReport { layers: 1, merged: 0, temporaries: 1, in_use: 1, freed: report.freed });
    assert_eq!(layers_in(&folder.path().join("store")).len(), 2);
    drop(run);
    assert!(soon(|| store.gc().unwrap().layers == 1));
    store.open_layers(&kept, &Cancel::default()).unwrap();
    let missing = store.open_layers(&used, &Cancel::default()).unwrap_err();
    assert!(matches!(missing, StoreError::LayerMissing { .. }));
    assert_eq!(store.gc().unwrap(), GcReport::default());
}

#[test]
fn pinned_layers_stay_as_long_as_their_holder() {
    let folder = folder();
    let store = store(&folder);
    let image = import(&folder, "app", "a");
    let holders = ["one", "two"].map(|name| folder.path().join(name));
    for holder in &holders {
        fs::create_dir(holder).unwrap();
        store.pin(&image, holder).unwrap();
    }
    store.remove(&image.tag).unwrap();
    assert_eq!(store.gc().unwrap(), GcReport::default());
    fs::remove_file(store.pin_path(&holders[0])).unwrap();
    assert_eq!(store.gc().unwrap(), GcReport::default());
    store.open_layers(&image, &Cancel::default()).unwrap();
    fs::remove_dir(&holders[1]).unwrap();
    assert!(soon(|| store.gc().unwrap().layers == 1));
    assert!(!store.pin_path(&holders[1]).exists(), "a pin without its holder is removed");
}

#[test]
fn opening_sweeps_what_killed_processes_left() {
    let folder = folder();
    store(&folder);
    let leftover = folder.path().join("store/tmp/12345-0");
    fs::write(&leftover, "half a layer").unwrap();
    let held = fs::File::open(&leftover).unwrap();
    held.lock_shared().unwrap();
    store(&folder);
    assert!(leftover.exists(), "somebody is at it");
    drop(held);
    let is_swept = || {
        store(&folder);
        !leftover.exists()
    };
    assert!(soon(is_swept));
}

#[test]
fn damaged_records_are_named_and_stop_the_collection() {
    let folder = folder();
    let image = import(&folder, "app", "etc/a");
    let store = store(&folder);
    let records = folder.path().join("store/images");
    let path = fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
    let good = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let wrong_digest = good.replace("sha256:", "sha256:../../");
    for bad in ["", "{", "null", "[]", "\0", &good[..good.len() / 2], &wrong_digest] {
        fs::write(&path, bad).unwrap();
        for error in [store.find(&image.tag).unwrap_err(), store.list().unwrap_err(), store.gc().unwrap_err()]
        {
            assert_eq!(error.kind(), Kind::Corrupt);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert!(error.hint().unwrap().contains("again"));
        }
    }
    assert_eq!(layers_in(&folder.path().join("store")).len(), 1, "nothing is collected then");
    fs::write(&path, good.replace("library/app", "library/other")).unwrap();
    assert!(matches!(store.find(&image.tag).unwrap_err(), StoreError::MisplacedRecord { .. }));
    // It can be replaced and removed all the same.
    assert_eq!(import(&folder, "app", "etc/a").layers, image.layers);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "{").unwrap();
    store.remove(&image.tag).unwrap();
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn a_store_where_none_can_be_is_an_error() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file).unwrap_err();
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn many_processes_import_and_collect_at_once() {
    let folder = folder();
    let path = folder.path().join("store");
    let input = folder.path().join("root.tar");
    fs::write(&input, noise("etc/a", 2 << 20)).unwrap();
    let store = store(&folder);
    let imports: Vec<_> =
        (0..4).map(|_| child::command("import", &path, input.to_str().unwrap()).spawn().unwrap()).collect();
    for mut process in imports {
        while process.try_wait().unwrap().is_none() {
            assert_eq!(store.gc().unwrap().layers, 0, "what is being imported is held");
        }
        assert!(process.wait().unwrap().success());
    }
    let images = store.list().unwrap();
    assert_eq!(images.len(), 1);
    store.open_layers(&images[0], &Cancel::default()).unwrap();
}
