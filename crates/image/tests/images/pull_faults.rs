//! Registries that fail, lie or attack. Whatever they do, nothing is left in the store.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Explain, Kind};
use image::IngestError;
use image::document::DocumentError;
use image::layer::Limits;
use image::progress::Event;
use image::pull::{PullError, PullOptions};
use image::registry::RegistryError;
use image::store::Store;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::example::{
    Blob, Compression, Example, OCI_CONFIG, OCI_MANIFEST, layers_in, leftovers, noise, tar_of,
};
use crate::pull::{options, pull};
use crate::server::{Reply, Request, Server, serve};

/// An image whose only layer is larger than any buffer on the way.
fn large() -> Example {
    Example::new(&[noise("noise", 1 << 20)], Compression::Plain)
}

/// Whether a request is for the (first) layer.
fn is_layer(example: &Example, request: &Request) -> bool {
    request.target.ends_with(&example.layers[0].digest().to_string())
}

/// Pulls from a registry with a fault, which must be an error that leaves nothing.
async fn fails(
    example: &Example,
    fault: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
) -> PullError {
    let server = Server::registry(example, fault);
    let folder = tempfile::tempdir().unwrap();
    let error = pull(folder.path(), &format!("{}/app:1", server.host()), &options()).await.unwrap_err();
    assert_nothing(folder.path());
    error
}

fn assert_nothing(store: &Path) {
    assert!(leftovers(store).is_empty());
    assert!(layers_in(store).is_empty());
    assert_eq!(store.join("images").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let example = large();
    let image = example.clone();
    let length = example.layers[0].bytes.len();
    let server = Server::registry(&example, move |request, before| {
        let cut = [400_000, 300_000].get(before).copied();
        cut.filter(|_| is_layer(&image, request)).map(|cut| serve(&image, request).cut(cut))
    });
    let folder = tempfile::tempdir().unwrap();
    let pulled = pull(folder.path(), &format!("{}/app:1", server.host()), &options()).await.unwrap();
    assert_eq!(pulled.image.layers, example.diff_ids);
    let requests = server.requests(&example.layers[0].digest().to_string());
    let starts: Vec<usize> = requests
        .iter()
        .map(|it| it.header("range").map_or(0, |range| range[6..range.len() - 1].parse().unwrap()))
        .collect();
    assert_eq!(starts.len(), 3);
    assert!(
        starts[0] == 0 && starts[1] > 200_000 && starts[2] > starts[1] && starts[2] < length,
        "{starts:?}"
    );
}

#[tokio::test]
async fn a_server_that_cannot_resume_starts_anew() {
    for status in [200, 416, 206] {
        let example = large();
        let image = example.clone();
        let server = Server::registry(&example, move |request, before| {
            let whole = Reply::blob(&image.layers[0]);
            match (is_layer(&image, request), before, status) {
                (false, ..) => None,
                (true, 0, _) => Some(whole.cut(400_000)),
                (true, 1, 416) => Some(Reply::new(416, "")),
                // It says that it continues, but from the start.
                (true, 1, 206) => {
                    let bytes = image.layers[0].bytes.clone();
                    Some(Reply::new(206, bytes).with("content-range", "bytes 0-9/10"))
                }
                _ => Some(whole),
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let pulled = pull(folder.path(), &format!("{}/app:1", server.host()), &options()).await.unwrap();
        assert_eq!(pulled.image.layers, example.diff_ids, "{status}");
    }
}

#[tokio::test]
async fn failures_that_pass_are_outlasted() {
    let example = Example::small();
    let server = Server::registry(&example, |request, before| {
        let fault = match before {
            0 => Reply::new(500, "oops"),
            1 if request.target.contains("manifests") => Reply::new(429, "").with("retry-after", "1"),
            _ => return None,
        };
        Some(fault)
    });
    let folder = tempfile::tempdir().unwrap();
    let started = Instant::now();
    pull(folder.path(), &format!("{}/app:1", server.host()), &options()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "Retry-After is honoured");
}

#[tokio::test]
async fn failures_that_stay_are_told() {
    let error = fails(&Example::small(), |_, _| {
        Some(Reply::new(503, r#"{"errors":[{"message":"down\u001b[31m"}]}"#))
    })
    .await;
    assert!(matches!(&error, PullError::Registry(RegistryError::Status { status: 503, .. })), "{error:?}");
    assert!(error.to_string().ends_with("status 503: down[31m"), "{error}");
    assert_eq!(error.kind(), Kind::Unavailable);

    let started = Instant::now();
    let error = fails(&Example::small(), |_, _| Some(Reply::new(429, "").with("retry-after", "3600"))).await;
    assert!(matches!(error, PullError::Registry(RegistryError::RateLimited { .. })), "{error:?}");
    assert!(error.hint().unwrap().contains("3600"));
    assert!(started.elapsed() < Duration::from_secs(5), "nobody waits for an hour");

    let error = fails(&Example::small(), |_, _| Some(Reply::new(404, ""))).await;
    assert!(matches!(error, PullError::Registry(RegistryError::NotFound { .. })), "{error:?}");
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn an_unreachable_registry_is_told_soon() {
    let folder = tempfile::tempdir().unwrap();
    let limit = Duration::from_secs(20);
    // Nothing listens on port 1; the second is no address; the third resolves to nothing, and for how long
    // that takes the host's resolver answers.
    for (reference, kind, limit) in [
        ("127.0.0.1:1/app", Kind::Unavailable, limit),
        ("1.2.3.4.5/app", Kind::InvalidInput, limit),
        ("registry.invalid/app", Kind::Unavailable, Duration::MAX),
    ] {
        let started = Instant::now();
        let error = pull(folder.path(), reference, &options()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{reference}: {error:?}");
        assert!(started.elapsed() < limit, "{reference}");
    }
    assert_nothing(folder.path());
}

#[tokio::test]
async fn a_blob_of_another_digest_is_refused() {
    let example = large();
    let image = example.clone();
    let error = fails(&example, move |request, _| {
        let mut bytes = image.layers[0].bytes.clone();
        bytes[100] ^= 1;
        is_layer(&image, request).then(|| Reply::new(200, bytes))
    })
    .await;
    assert!(matches!(error, PullError::Registry(RegistryError::Digest { .. })), "{error:?}");
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[tokio::test]
async fn a_manifest_or_configuration_of_another_digest_is_refused() {
    let example = Example::small();
    let server = Server::registry(&example, |request, _| {
        request.target.contains("/manifests/sha256").then(|| Reply::new(200, "{}"))
    });
    let folder = tempfile::tempdir().unwrap();
    let pinned = format!("{}/app@{}", server.host(), example.manifest.digest());
    let error = pull(folder.path(), &pinned, &options()).await.unwrap_err();
    assert!(
        matches!(error, PullError::Registry(RegistryError::Digest { what: "manifest", .. })),
        "{error:?}"
    );

    let config = example.config.digest().to_string();
    let error =
        fails(&example, move |request, _| request.target.ends_with(&config).then(|| Reply::new(200, "{}")))
            .await;
    assert!(matches!(error, PullError::Registry(RegistryError::Digest { .. })), "{error:?}");
}

#[tokio::test]
async fn more_bytes_than_declared_are_not_taken() {
    let example = Example::small();
    let image = example.clone();
    let error = fails(&example, move |request, _| {
        is_layer(&image, request).then(|| Reply::new(200, vec![0; 1 << 20]).endless())
    })
    .await;
    assert!(matches!(error, PullError::Registry(RegistryError::Oversize { .. })), "{error:?}");
    let endless = |part: &'static str| {
        move |request: &Request, _| {
            request.target.contains(part).then(|| Reply::new(200, vec![b' '; 1 << 20]).endless())
        }
    };
    for part in ["/manifests/", "/blobs/"] {
        let error = fails(&example, endless(part)).await;
        let limited = matches!(
            error,
            PullError::Registry(RegistryError::TooLarge { .. } | RegistryError::Oversize { .. })
        );
        assert!(limited, "{part}: {error:?}");
    }
    let huge = |_: &Request, _| Some(Reply::new(200, vec![b' '; 5 << 20]));
    let error = fails(&example, huge).await;
    assert_eq!(error.kind(), Kind::LimitExceeded, "{error:?}");
}

#[tokio::test]
async fn a_layer_larger_than_any_may_be_is_not_even_asked_for() {
    let most = Limits::default().expanded_bytes;
    for size in [most + 1, u64::MAX] {
        let mut example = Example::small();
        let mut manifest: Value = serde_json::from_slice(&example.manifest.bytes).unwrap();
        manifest["layers"][0]["size"] = size.into();
        example.manifest = Blob::json(OCI_MANIFEST, &manifest);
        let server = Server::registry(&example, |_, _| None);
        let folder = tempfile::tempdir().unwrap();
        let error = pull(folder.path(), &format!("{}/app:1", server.host()), &options()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::LimitExceeded, "{error:?}");
        assert!(error.to_string().contains(&format!("{size} bytes")), "{error}");
        assert!(server.requests(&example.layers[0].digest().to_string()).is_empty());
        assert_nothing(folder.path());
    }
}

#[tokio::test]
async fn a_layer_that_is_not_the_configurations_is_refused() {
    let good = Example::small();
    let other = Example::new(&[tar_of(&[("other", b"")])], Compression::Gzip);
    let mixed = Example::from_parts(good.config.clone(), other.layers.clone(), good.diff_ids.clone());
    let error = fails(&mixed, |_, _| None).await;
    assert!(matches!(error, PullError::Layer(IngestError::DiffId { .. })), "{error:?}");

    let two = vec![good.layers[0].clone(), other.layers[0].clone()];
    let error = fails(&Example::from_parts(good.config.clone(), two, vec![]), |_, _| None).await;
    assert!(matches!(error, PullError::Document(DocumentError::LayerCount { .. })), "{error:?}");

    let mut cut = good.layers[0].clone();
    cut.bytes.truncate(cut.bytes.len() / 2);
    let error = fails(&Example::from_parts(good.config.clone(), vec![cut], good.diff_ids), |_, _| None).await;
    assert!(matches!(error, PullError::Layer(IngestError::Layer { .. })), "{error:?}");
    assert_eq!(error.kind(), Kind::Corrupt);
}

#[tokio::test]
async fn what_is_not_an_image_is_refused() {
    let helm = Blob { media_type: "application/vnd.cncf.helm.config.v1+json".into(), bytes: b"{}".to_vec() };
    let error = fails(&Example::from_parts(helm, vec![], vec![]), |_, _| None).await;
    assert!(matches!(error, PullError::Document(DocumentError::NotAnImage(_))), "{error:?}");

    let schema1 = json!({"schemaVersion": 1, "name": "app", "tag": "1", "fsLayers": [], "signatures": []});
    let error = fails(&Example::small(), move |_, _| Some(Reply::new(200, schema1.to_string()))).await;
    assert!(matches!(error, PullError::Document(DocumentError::Schema1)), "{error:?}");
    assert!(error.hint().unwrap().contains("push the image again"));

    for nonsense in ["", "<html>", "{", "[1]", "{}"] {
        let error = fails(&Example::small(), move |_, _| Some(Reply::new(200, nonsense))).await;
        assert_eq!(error.kind(), Kind::Corrupt, "{nonsense}: {error:?}");
    }
    let config = Blob { media_type: OCI_CONFIG.into(), bytes: b"\xff".to_vec() };
    let error = fails(&Example::from_parts(config, vec![], vec![]), |_, _| None).await;
    assert!(matches!(error, PullError::Document(DocumentError::Malformed { .. })), "{error:?}");
}

#[tokio::test]
async fn a_silent_registry_is_given_up() {
    let example = large();
    let layer = example.layers[0].digest().to_string();
    // In the middle of a layer; before the first word.
    for (part, after) in [(layer, 1000), ("/manifests/".into(), 0)] {
        let image = example.clone();
        let server = Server::registry(&example, move |request, _| {
            let silent = request.target.contains(&part);
            silent.then(|| serve(&image, request).stall(after, Duration::from_secs(30)))
        });
        let folder = tempfile::tempdir().unwrap();
        let mut options = options();
        options.registry.idle_timeout = Duration::from_millis(200);
        let started = Instant::now();
        let error = pull(folder.path(), &format!("{}/app:1", server.host()), &options).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout, "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_nothing(folder.path());
    }
}

#[tokio::test]
async fn redirects_go_without_credentials_and_never_to_unprotected_strangers() {
    let example = Example::small();
    let image = example.clone();
    let elsewhere = Server::start(move |request, _| serve(&image, request));
    let (image, target) = (example.clone(), elsewhere.host());
    let server = Server::registry(&example, move |request, _| {
        if request.header("authorization").is_none() {
            return Some(Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\""));
        }
        let location = format!("http://{target}{}", request.target);
        is_layer(&image, request).then(|| Reply::new(307, "").with("location", &location))
    });
    let folder = tempfile::tempdir().unwrap();
    let options = PullOptions {
        registry: crate::pull_auth::with_password(&server.host(), "me:secret", &folder),
        ..options()
    };
    let reference = format!("{}/app:1", server.host());
    let store = folder.path().join("store");
    pull(&store, &reference, &options).await.unwrap();
    let redirected = elsewhere.requests("");
    assert_eq!(redirected.len(), 1);
    assert!(redirected[0].header("authorization").is_none() && redirected[0].header("referer").is_none());
    assert!(server.requests("/blobs/").iter().any(|it| it.header("authorization").is_some()));

    // Whoever it redirects to cannot ask for credentials either.
    let greedy = Server::start(|_, _| Reply::new(401, "").with("www-authenticate", "Basic realm=\"x\""));
    let location = format!("http://{}/x", greedy.host());
    let error = fails(&example, move |_, _| Some(Reply::new(302, "").with("location", &location))).await;
    assert!(matches!(error, PullError::Registry(RegistryError::Denied { .. })), "{error:?}");
    assert_eq!(greedy.requests("").len(), 1);

    for location in ["http://192.0.2.1/x", "ftp://localhost/x", "http://localhost.example.com/"] {
        let error = fails(&example, move |_, _| Some(Reply::new(302, "").with("location", location))).await;
        assert!(
            matches!(error, PullError::Registry(RegistryError::Redirect { .. })),
            "{location}: {error:?}"
        );
    }
    let error = fails(&example, |request, _| {
        Some(Reply::new(302, "").with("location", &format!("{}/again", request.target)))
    })
    .await;
    assert!(matches!(error, PullError::Registry(RegistryError::Redirect { .. })), "{error:?}");
}

#[tokio::test]
async fn a_dropped_pull_leaves_nothing_and_stops_nobody() {
    let example = large();
    let image = example.clone();
    let server = Server::registry(&example, move |request, before| {
        (is_layer(&image, request) && before == 0)
            .then(|| Reply::blob(&image.layers[0]).stall(400_000, Duration::from_secs(30)))
    });
    let folder = tempfile::tempdir().unwrap();
    let reference = format!("{}/app:1", server.host());
    let under_way = Arc::new(Notify::new());
    let heard = under_way.clone();
    let listener = move |event| {
        if matches!(event, Event::Downloading { done: 200_000.., .. }) {
            heard.notify_one();
        }
    };
    let store = Store::open(folder.path()).unwrap();
    let parsed = reference.parse().unwrap();
    let options = options();
    tokio::select! {
        _ = image::pull::pull(&store, &parsed, &options, Arc::new(listener)) => panic!("it cannot end"),
        () = under_way.notified() => {}
    }
    assert_nothing(folder.path());
    pull(folder.path(), &reference, &options).await.unwrap();
}
