//! References against what Docker makes of them.

use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn full(text: &str) -> String {
    text.parse::<Reference>().unwrap_or_else(|error| panic!("{error}")).to_string()
}

#[test]
fn defaults_are_filled_in_as_docker_does() {
    for (typed, meant) in [
        ("debian", "docker.io/library/debian:latest"),
        ("debian:12", "docker.io/library/debian:12"),
        ("debian-python", "docker.io/library/debian-python:latest"),
        ("library/debian", "docker.io/library/debian:latest"),
        ("me/app", "docker.io/me/app:latest"),
        ("docker.io/debian", "docker.io/library/debian:latest"),
        ("index.docker.io/library/debian", "docker.io/library/debian:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("localhost:5000/a/b:5000", "localhost:5000/a/b:5000"),
        ("ghcr.io/a/b__c/d-e---f.g_h", "ghcr.io/a/b__c/d-e---f.g_h:latest"),
        ("Registry/a", "Registry/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("127.0.0.1:5000/a:_T.-9", "127.0.0.1:5000/a:_T.-9"),
        ("xn--n3h.com/a", "xn--n3h.com/a:latest"),
    ] {
        assert_eq!(full(typed), meant, "{typed}");
        assert_eq!(full(meant), meant);
    }
}

#[test]
fn a_digest_decides_and_its_tag_is_forgotten() {
    let both = format!("localhost:5000/a/b:1@sha256:{HEX}").parse::<Reference>().unwrap();
    let alone = format!("localhost:5000/a/b@sha256:{HEX}").parse::<Reference>().unwrap();
    assert_eq!(both, alone);
    assert_eq!(both.version(), format!("sha256:{HEX}"));
    assert_eq!(both.digest(), Some(Digest::of(b"")));
}

#[test]
fn familiar_names_drop_the_defaults() {
    for (typed, shown) in [
        ("debian", "debian:latest"),
        ("docker.io/library/debian:12", "debian:12"),
        ("docker.io/me/app", "me/app:latest"),
        ("quay.io/library/debian", "quay.io/library/debian:latest"),
        ("docker.io/library/a/b", "library/a/b:latest"),
        ("docker.io/a.io/b", "docker.io/a.io/b:latest"),
    ] {
        let reference: Reference = typed.parse().unwrap();
        assert_eq!(reference.familiar(), shown);
        assert_eq!(reference.familiar().parse(), Ok(reference));
    }
}

#[test]
fn what_docker_refuses_is_refused() {
    let long = format!("{}/a", "x".repeat(MAX_NAME));
    let long_tag = format!("a:{}", "x".repeat(MAX_TAG + 1));
    let empty_digest = "a@sha256:".to_owned();
    let short = format!("a@sha256:{}", &HEX[1..]);
    let upper = format!("a@sha256:{}", HEX.to_uppercase());
    for wrong in [
        "",
        ":",
        "@",
        "/",
        "a/",
        "/a",
        "a//b",
        "a:",
        ":tag",
        "a@",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a._b",
        "_a",
        "a_",
        "a b",
        "a\0",
        "a\n",
        "ä",
        "a:ä",
        "a:-x",
        "a:.x",
        "a:x/y:z w",
        "../a",
        "a/../b",
        "a/./b",
        "https://a/b",
        "-a.b/c",
        "a-.b/c",
        "a..b/c",
        "a:x/b",
        "a:99999/b",
        "a:/b",
        "u:p@host/a",
        "[::1/a",
        "[::1]x/a",
        "[nope]/a",
        "a?b",
        "a#b",
        "a%2fb",
        HEX,
        &long,
        &long_tag,
        &empty_digest,
        &short,
        &upper,
        "a@sha512:00",
        "Debian/",
    ] {
        assert!(wrong.parse::<Reference>().is_err(), "{wrong:?}");
    }
    let error = "Debian".parse::<Reference>().unwrap_err();
    assert_eq!(error.reason, Reason::UpperCase);
    assert_eq!(error.hint().as_deref(), Some("try debian"));
}

#[test]
fn only_this_machine_is_loopback() {
    for name in [
        "localhost/a",
        "localhost:5000/a",
        "LOCALHOST:5000/a",
        "127.0.0.1/a",
        "127.9.9.9:80/a",
        "[::1]:5000/a",
        "[::1]/a",
    ] {
        assert!(name.parse::<Reference>().unwrap().is_loopback(), "{name}");
    }
    for name in [
        "a",
        "localhost.example.com/a",
        "127.0.0.1.nip.io/a",
        "128.0.0.1/a",
        "0.0.0.0:5000/a",
        "[::2]/a",
        "10.0.0.1/a",
    ] {
        assert!(!name.parse::<Reference>().unwrap().is_loopback(), "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_is_refused_or_means_the_same_again(text in "\\PC{0,80}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse(), Ok(reference));
        }
    }

    #[test]
    fn likely_text_is_refused_or_means_the_same_again(text in "[a-zA-Z0-9._:/@\\[\\]-]{0,40}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
            prop_assert_eq!(reference.familiar().parse(), Ok(reference));
        }
    }
}
