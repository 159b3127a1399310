//! Pulls that go well, from the real registry and from one that counts.

use std::path::Path;
use std::sync::{Arc, Mutex};

use image::digest::Digest;
use image::platform::Platform;
use image::progress::{Event, Silent};
use image::pull::{PullError, PullOptions, Pulled};
use image::reference::Reference;
use image::registry::{CredentialFiles, RegistryOptions};
use image::store::{Cancel, Source, Store};
use serde_json::json;

use crate::child;
use crate::example::{Blob, Compression, Example, OCI_INDEX, layers_in, leftovers, noise, tar_of};
use crate::registry::Registry;
use crate::server::{Reply, Server, serve};
use crate::store::soon;

/// Options without the credentials of whoever runs the tests.
pub(crate) fn options() -> PullOptions {
    let registry = RegistryOptions { credentials: CredentialFiles::default(), ..RegistryOptions::default() };
    PullOptions { registry, ..PullOptions::default() }
}

pub(crate) async fn pull(store: &Path, reference: &str, options: &PullOptions) -> Result<Pulled, PullError> {
    let store = Store::open(store).unwrap();
    let reference: Reference = reference.parse().unwrap();
    image::pull::pull(&store, &reference, options, Arc::new(Silent)).await
}

#[tokio::test]
async fn an_image_comes_from_a_real_registry_once() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    for (index, compression) in
        [Compression::Plain, Compression::Gzip, Compression::Zstd].into_iter().enumerate()
    {
        let tars = [tar_of(&[("a", b"1")]), tar_of(&[("b", &[index as u8])])];
        let example = Example::new(&tars, compression);
        let name = format!("team/app:{index}");
        registry.push(&example, &name);
        let reference = format!("{}/{name}", registry.host());
        let pulled = pull(folder.path(), &reference, &options()).await.unwrap();
        assert!(!pulled.up_to_date);
        assert_eq!(pulled.image.digest, example.manifest.digest());
        assert_eq!(pulled.image.layers, example.diff_ids);
        assert_eq!(pulled.image.source, Source::Pull(reference.parse().unwrap()));
        assert_eq!(pulled.image.config.env, ["PATH=/bin", "NAME=a b"]);
        assert_eq!(pulled.image.config.user, "7:8");
        assert_eq!(pulled.image.platform, Platform::host());
        let again = pull(folder.path(), &reference, &options()).await.unwrap();
        assert_eq!(again, Pulled { image: pulled.image.clone(), up_to_date: true });
        let store = Store::open(folder.path()).unwrap();
        let layers = store.open_layers(&pulled.image, &Cancel::default()).unwrap();
        assert_eq!(layers.disks().len(), 2);
        assert_eq!(layers.disks().iter().map(image::store::Disk::size).sum::<u64>(), pulled.image.size);
    }
    // The first layer is the same in all three.
    assert_eq!(layers_in(folder.path()).len(), 4);
    assert!(leftovers(folder.path()).is_empty());
}

#[tokio::test]
async fn dockers_own_formats_are_understood() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let example = Example::small();
    registry.push_with(&example, "app:1", &["--format", "v2s2", "--preserve-digests=false"]);
    let pulled = pull(folder.path(), &format!("{}/app:1", registry.host()), &options()).await.unwrap();
    assert_eq!(pulled.image.layers, example.diff_ids);
    assert_ne!(pulled.image.digest, example.manifest.digest());
}

#[tokio::test]
async fn what_is_there_is_not_downloaded_unless_forced() {
    let example = Example::new(&[tar_of(&[("a", b"1")]), tar_of(&[("b", b"2")])], Compression::Gzip);
    let server = Server::registry(&example, |_, _| None);
    let folder = tempfile::tempdir().unwrap();
    let reference = format!("{}/app:1", server.host());
    let blobs = || server.requests("/blobs/").len();
    pull(folder.path(), &reference, &options()).await.unwrap();
    assert_eq!(blobs(), 3);
    assert!(pull(folder.path(), &reference, &options()).await.unwrap().up_to_date);
    assert_eq!((blobs(), server.requests("/manifests/").len()), (3, 2));

    // Under another tag: the same layers.
    let tagged = PullOptions { tag: Some("mine".parse().unwrap()), ..options() };
    let image = pull(folder.path(), &reference, &tagged).await.unwrap().image;
    assert_eq!(image.tag.familiar(), "mine:latest");
    assert_eq!(blobs(), 4, "only the configuration");

    // By digest: nothing can have changed, so nothing is asked.
    let pinned = format!("{}/app@{}", server.host(), example.manifest.digest());
    pull(folder.path(), &pinned, &options()).await.unwrap();
    let asked = server.requests("").len();
    assert!(pull(folder.path(), &pinned, &options()).await.unwrap().up_to_date);
    assert_eq!(server.requests("").len(), asked);

    let before = blobs();
    let forced = PullOptions { force: true, ..options() };
    assert!(!pull(folder.path(), &reference, &forced).await.unwrap().up_to_date);
    assert_eq!(blobs(), before + 3);
    assert_eq!(layers_in(folder.path()).len(), 2);
}

#[tokio::test]
async fn the_image_for_this_platform_is_found_in_nested_indexes() {
    let host = Platform::host();
    let other: Platform =
        if host.architecture == "amd64" { "linux/arm64" } else { "linux/amd64" }.parse().unwrap();
    let ours = Example::of_platform(&[tar_of(&[("ours", b"")])], Compression::Gzip, &host);
    let theirs = Example::of_platform(&[tar_of(&[("theirs", b"")])], Compression::Gzip, &other);
    let entry = |blob: &Blob, platform: &Platform| {
        let mut entry = blob.descriptor();
        entry["platform"] = json!(platform);
        entry
    };
    let index = |entries: Vec<serde_json::Value>| {
        Blob::json(OCI_INDEX, &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}))
    };
    let inner = index(vec![entry(&theirs.manifest, &other), entry(&ours.manifest, &host)]);
    let outer = index(vec![inner.descriptor()]);
    let top = outer.digest();
    let (o, t) = (ours.clone(), theirs.clone());
    let server = Server::start(move |request, _| {
        if request.target.ends_with("/manifests/1") {
            return Reply::blob(&outer);
        }
        if request.target.ends_with(&inner.digest().to_string()) {
            return Reply::blob(&inner);
        }
        let example =
            if t.blobs().any(|blob| request.target.ends_with(&blob.digest().to_string())) { &t } else { &o };
        serve(example, request)
    });
    let folder = tempfile::tempdir().unwrap();
    let reference = format!("{}/app:1", server.host());
    let pulled = pull(folder.path(), &reference, &options()).await.unwrap().image;
    assert_eq!((pulled.digest, &pulled.layers), (top, &ours.diff_ids));

    let for_other = PullOptions { platform: Some(other), ..options() };
    assert_eq!(pull(folder.path(), &reference, &for_other).await.unwrap().image.layers, theirs.diff_ids);

    let for_none = PullOptions { platform: Some("linux/s390x".parse().unwrap()), ..options() };
    let error = pull(folder.path(), &reference, &for_none).await.unwrap_err().to_string();
    assert!(error.contains("does not exist for linux/s390x, only for linux/a"), "{error}");
}

#[tokio::test]
async fn an_image_for_another_platform_is_refused() {
    let example =
        Example::of_platform(&[tar_of(&[("a", b"")])], Compression::Gzip, &"linux/s390x".parse().unwrap());
    let server = Server::registry(&example, |_, _| None);
    let folder = tempfile::tempdir().unwrap();
    let error = pull(folder.path(), &format!("{}/app:1", server.host()), &options()).await.unwrap_err();
    assert!(error.to_string().contains("the image is for linux/s390x, not for "), "{error}");
}

#[tokio::test]
async fn progress_is_told_for_each_layer() {
    let example = Example::new(&[noise("a", 300_000), tar_of(&[("b", b"2")])], Compression::Gzip);
    let server = Server::registry(&example, |_, _| None);
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let log = events.clone();
    let listener = move |event| log.lock().unwrap().push(event);
    let reference: Reference = format!("{}/app:1", server.host()).parse().unwrap();
    image::pull::pull(&store, &reference, &options(), Arc::new(listener)).await.unwrap();
    let events = events.lock().unwrap();
    assert_eq!(events[0], Event::Layers { diff_ids: example.diff_ids.clone() });
    for (diff_id, blob) in example.diff_ids.iter().zip(&example.layers) {
        let length = blob.bytes.len() as u64;
        let last = Event::Downloading { diff_id: *diff_id, done: length, total: length };
        let converted = Event::Converting { diff_id: Some(*diff_id), done: length, total: Some(length) };
        let position =
            |event: &Event| events.iter().position(|it| it == event).unwrap_or_else(|| panic!("{event:?}"));
        assert!(position(&last) < position(&converted));
        assert!(position(&converted) < position(&Event::Done { diff_id: *diff_id }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_at_once_download_each_layer_once() {
    let tars: Vec<Vec<u8>> = (0..4).map(|index| noise(&format!("f{index}"), 400_000)).collect();
    let example = Example::new(&tars, Compression::Gzip);
    let server = Server::registry(&example, |_, _| None);
    let folder = tempfile::tempdir().unwrap();
    let reference = format!("{}/app:1", server.host());
    let pulls = options();
    let (a, b) =
        tokio::join!(pull(folder.path(), &reference, &pulls), pull(folder.path(), &reference, &pulls),);
    assert_eq!(a.unwrap().image.layers, b.unwrap().image.layers);
    for layer in &example.layers {
        assert_eq!(server.requests(&layer.digest().to_string()).len(), 1);
    }
    assert!(leftovers(folder.path()).is_empty());
}

#[test]
fn two_processes_at_once_download_each_layer_once() {
    let tars: Vec<Vec<u8>> = (0..3).map(|index| noise(&format!("f{index}"), 400_000)).collect();
    let example = Example::new(&tars, Compression::Zstd);
    let server = Server::registry(&example, |_, _| None);
    let folder = tempfile::tempdir().unwrap();
    let reference = format!("{}/app:1", server.host());
    let spawn = || child::command("pull", folder.path(), &reference).spawn().unwrap();
    for mut process in [spawn(), spawn(), spawn()] {
        assert!(process.wait().unwrap().success());
    }
    for layer in &example.layers {
        assert_eq!(server.requests(&layer.digest().to_string()).len(), 1);
    }
    assert_eq!(layers_in(folder.path()).len(), 3);
    assert!(leftovers(folder.path()).is_empty());
}

#[tokio::test]
async fn many_layers_are_merged_into_one_disk() {
    let tars: Vec<Vec<u8>> = (0..12).map(|n| tar_of(&[("same", &[n]), (&format!("f{n}"), b"x")])).collect();
    let example = Example::new(&tars, Compression::Gzip);
    let server = Server::registry(&example, |_, _| None);
    let folder = tempfile::tempdir().unwrap();
    let image = pull(folder.path(), &format!("{}/app:1", server.host()), &options()).await.unwrap().image;
    assert_eq!(image.layers.iter().map(Digest::short).collect::<Vec<_>>().len(), 12);
    let store = Store::open(folder.path()).unwrap();
    let open = || store.open_layers(&image, &Cancel::default()).unwrap();
    let merged = open();
    assert_eq!(merged.disks().len(), 1);
    let path = merged.disks()[0].path().to_owned();
    let made = path.metadata().unwrap().modified().unwrap();
    assert_eq!(open().disks()[0].path(), path);
    assert_eq!(path.metadata().unwrap().modified().unwrap(), made, "it is made once");
    assert_eq!(store.gc().unwrap().merged, 0);
    store.remove(&image.tag).unwrap();
    assert!(soon(|| store.gc().unwrap().in_use == 1), "a run uses it, and no single layer");
    drop(merged);
    assert!(soon(|| store.gc().unwrap().merged == 1));
    assert!(!path.exists());
}
