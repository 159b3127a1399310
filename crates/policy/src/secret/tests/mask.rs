//! Values on their way back to the guest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::secret::mask::{MIN_HELD, Masker};

/// A policy with these secrets, all for one host.
fn secrets(rows: &[(&str, &str)]) -> Policy {
    let names: Vec<_> = (0..rows.len()).map(|i| format!("S{i}")).collect();
    let rows: Vec<Row<'_>> = rows
        .iter()
        .zip(&names)
        .map(|(&(placeholder, value), name)| (&**name, placeholder, value, &["own.example"][..], true))
        .collect();
    compile(&rows).unwrap()
}

fn masker(policy: &Policy, host: &str) -> Option<Masker> {
    policy.secrets().masker(&permit(policy, host, 443))
}

/// What comes out of a stream that is fed these pieces.
fn masked(masker: &Masker, pieces: &[&[u8]]) -> Vec<u8> {
    let (mut stream, mut out) = (masker.stream(), Vec::new());
    for piece in pieces {
        stream.feed(piece, &mut out);
    }
    stream.finish(&mut out);
    out
}

fn masked_text(masker: &Masker, text: &str) -> String {
    String::from_utf8(masked(masker, &[text.as_bytes()])).unwrap()
}

#[test]
fn a_value_in_a_body_becomes_the_placeholder_in_every_form() {
    let policy = secrets(&[(P1, "a\"b\\c/d e<f>&g'hü")]);
    let masker = masker(&policy, "own.example").unwrap();
    for text in [
        "a\"b\\c/d e<f>&g'hü",
        r#"a\"b\\c/d e<f>&g'hü"#,
        r#"a\"b\\c\/d e<f>&g'hü"#,
        "a\\\"b\\\\c/d e<f>&g'h\\u00fc",
        "a\\\"b\\\\c\\/d e<f>&g'h\\u00fc",
        "a\\\"b\\\\c/d e\\u003cf\\u003e\\u0026g'hü",
        "a\\u0022b\\\\c/d e\\u003Cf\\u003E\\u0026g\\u0027h\\u00FC",
        "a%22b%5Cc%2Fd%20e%3Cf%3E%26g%27h%C3%BC",
        "a%22b%5cc%2fd%20e%3cf%3e%26g%27h%c3%bc",
        "a%22b%5Cc%2Fd%20e%3Cf%3E%26g'h%C3%BC",
        "a%22b%5Cc%2Fd+e%3Cf%3E%26g%27h%C3%BC",
        "a&quot;b\\c/d e&lt;f&gt;&amp;g&#x27;hü",
        "a&#34;b\\c/d e&lt;f&gt;&amp;g&#39;hü",
    ] {
        assert_eq!(masked_text(&masker, &format!("<{text}>")), format!("<{P1}>"), "{text}");
    }
}

#[test]
fn a_value_in_a_url_within_a_url_or_written_by_a_template_becomes_the_placeholder() {
    let policy = secrets(&[(P1, "abc/def= 'g`h*i")]);
    let masker = masker(&policy, "own.example").unwrap();
    for text in [
        "/login?next=%2Fx%3Ft%3Dabc%252Fdef%253D%2520%2527g%2560h%252Ai",
        "/login?next=%2fx%3ft%3dabc%252fdef%253d%2520%2527g%2560h%252ai",
        "/login?next=%2Fx%3Ft%3Dabc%252Fdef%253D%2520'g%2560h*i",
        "/login?next=%2Fx%3Ft%3Dabc%252Fdef%253D%2B%2527g%2560h*i",
        "abc/def\\u003d \\u0027g`h*i",
        "abc/def&#x3D; &#x27;g&#x60;h*i",
        "abc&#x2F;def&#x3D; &#39;g&#x60;h*i",
    ] {
        let masked = masked_text(&masker, text);
        assert!(masked.ends_with(P1) && !masked.contains("def"), "{text}: {masked}");
    }
}

#[test]
fn a_value_without_special_characters_has_one_form_besides_base64() {
    let patterns =
        |value| form::FORMS.iter().map(|form| form(value)).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(patterns("sk-live_0123456789.abc-def").len(), 1);
}

#[test]
fn basic_credentials_that_are_echoed_do_not_tell_the_value() {
    let policy = secrets(&[(P1, V1)]);
    let masker = masker(&policy, "own.example").unwrap();
    for user in ["", "u", "us", "user"] {
        let echoed = STANDARD.encode(format!("{user}:{V1}"));
        let out = masked_text(&masker, &format!("{{\"Authorization\": \"Basic {echoed}\"}}"));
        assert!(out.contains(P1), "{out}");
        assert!(form::base64_cores(V1.as_bytes()).iter().all(|core| !out.contains(core)), "{out}");
    }
}

#[test]
fn a_placeholder_is_written_as_the_value_was() {
    let policy = secrets(&[("{\"p\": %20+}", "value\"with\"quotes")].map(|(_, v)| ("{\"p\":%20+}", v)));
    let masker = masker(&policy, "own.example").unwrap();
    assert_eq!(masked_text(&masker, r#"["value\"with\"quotes"]"#), r#"["{\"p\":%20+}"]"#);
    assert_eq!(masked_text(&masker, "?a=value%22with%22quotes"), "?a=%7B%22p%22%3A%2520%2B%7D");
}

#[test]
fn only_the_hosts_own_secrets_are_hidden_so_that_others_cannot_be_guessed() {
    let policy = two();
    let text = format!("{V1} {V2}");
    assert!(masker(&policy, "other.example").is_none());
    for (host, expected) in [
        ("own.example", format!("{P1} {V2}")),
        ("second.example", format!("{V1} {P2}")),
        ("both.example", format!("{P1} {P2}")),
    ] {
        // The second time it is one that was kept.
        for _ in 0..2 {
            assert_eq!(masked_text(&masker(&policy, host).unwrap(), &text), expected, "{host}");
        }
    }
    let shown = compile(&[("A", P1, V1, &["own.example"], false)]).unwrap();
    assert!(masker(&shown, "own.example").is_none());
    assert!(shown.secrets().leak_scanner(&permit(&shown, "own.example", 443)).is_none());
}

#[test]
fn headers_and_their_names_are_masked_whatever_they_are_for() {
    let policy = secrets(&[(P1, "Token-1234567")]);
    let masker = masker(&policy, "own.example").unwrap();
    let mut headers = HeaderMap::new();
    headers.append("set-cookie", HeaderValue::from_static("a=Token-1234567; b=1"));
    headers.append("set-cookie", HeaderValue::from_static("c=Token%2D1234567"));
    headers.append("location", HeaderValue::from_static("https://x/?t=Token-1234567"));
    headers.append("x-token-1234567", HeaderValue::from_static("in the name"));
    headers.append("x-bytes", HeaderValue::from_bytes(b"\xff Token-1234567").unwrap());
    headers.append("content-length", HeaderValue::from_static("12"));
    let others = ["host", "expect", "trailer", "te", "connection", "upgrade", "transfer-encoding"];
    for name in others {
        headers.append(name, HeaderValue::from_static("Token-1234567"));
    }
    masker.headers(&mut headers);
    for name in others {
        assert_eq!(headers[name], P1, "{name}");
    }
    let cookies: Vec<_> = headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies[0], &format!("a={P1}; b=1"));
    assert_eq!(headers["location"], format!("https://x/?t={P1}"));
    assert_eq!(headers["x-bytes"].as_bytes(), [b"\xff ", P1.as_bytes()].concat());
    assert!(!headers.contains_key("x-token-1234567"));
    assert_eq!(headers["content-length"], "12");
}

#[test]
fn a_length_stays_true_and_what_is_none_is_masked() {
    let policy = secrets(&[(P1, "31"), ("PLACEHOLDER-2", "Token-1234567")]);
    let masker = masker(&policy, "own.example").unwrap();
    for (length, expected) in [("31", "31"), ("Token-1234567", "PLACEHOLDER-2")] {
        let mut headers = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static(length))]);
        masker.headers(&mut headers);
        assert_eq!(headers[CONTENT_LENGTH], expected);
    }
}

#[test]
fn what_cannot_be_a_beginning_of_a_value_is_not_held_back() {
    let policy = secrets(&[(P1, "value-of-a-secret"), ("PLACEHOLDER-2", "other-value")]);
    let masker = masker(&policy, "own.example").unwrap();
    let (mut stream, mut out) = (masker.stream(), Vec::new());
    stream.feed(b"data: an event\n\n", &mut out);
    assert_eq!(out, b"data: an event\n\n");
    stream.feed(b"data: value-of", &mut out);
    assert!(out.ends_with(b"data: "));
    stream.feed(b"-others\n\n", &mut out);
    assert!(out.ends_with(b"data: value-of-others\n\n"));
    // The end is one beginning of a value and contains another.
    stream.feed(b"value-of-a-other-valu", &mut out);
    assert!(out.ends_with(b"value-of-a-"));
    stream.feed(b"e", &mut out);
    assert!(out.ends_with(b"value-of-a-PLACEHOLDER-2"));
    stream.feed(b"value-of-a-secre", &mut out);
    stream.finish(&mut out);
    assert!(out.ends_with(b"PLACEHOLDER-2value-of-a-secre"));
}

#[test]
fn of_values_that_overlap_the_leftmost_and_longest_is_replaced() {
    let policy = secrets(&[("<<FIRST>>", "abc"), ("<<SECOND>>", "abcdef"), ("<<THIRD>>", "cdefgh")]);
    let masker = masker(&policy, "own.example").unwrap();
    for (text, expected) in [
        ("abcdef", "<<SECOND>>"),
        ("abcde", "<<FIRST>>de"),
        ("abcdefgh", "<<SECOND>>gh"),
        ("xcdefgh", "x<<THIRD>>"),
        ("ababcabcd", "ab<<FIRST>><<FIRST>>d"),
    ] {
        assert_eq!(masked_text(&masker, text), expected);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(masked(&masker, &bytes), expected.as_bytes());
    }
}

#[test]
fn a_scanner_finds_a_value_across_pieces_and_nothing_else() {
    let policy = two();
    let scanner = || policy.secrets().leak_scanner(&permit(&policy, "own.example", 443)).unwrap();
    let text = format!("before {V1} after");
    for at in 0..text.len() {
        let mut scanner = scanner();
        let (a, b) = text.as_bytes().split_at(at);
        let found = [scanner.feed(a), scanner.feed(b)];
        assert!(found.contains(&true), "{at}");
    }
    let mut one = scanner();
    assert!(text.as_bytes().chunks(1).any(|byte| one.feed(byte)));
    let mut none = scanner();
    assert!(
        !none.feed(V2.as_bytes())
            && !none.feed(&V1.as_bytes()[1..])
            && !none.feed(b"")
            && !none.feed(P1.as_bytes())
    );
    assert!(policy.secrets().leak_scanner(&permit(&policy, "other.example", 443)).is_none());
}

#[test]
fn a_scanner_lets_nothing_wait_but_what_looks_like_a_value() {
    let policy = secrets(&[(P1, "value-of-a-secret"), ("PLACEHOLDER-2", "abc")]);
    let permit = permit(&policy, "own.example", 443);
    let mut scanner = policy.secrets().leak_scanner(&permit).unwrap();
    for (bytes, held) in [
        ("data: an event\n\n", 0),
        ("val", 0),
        ("u", 4),
        ("e-of", 8),
        ("-others", 0),
        ("ab", 0),
        ("value-of-a-value-", 6),
        ("of-a-secre", 16),
        ("", 16),
        ("s", 0),
    ] {
        assert!(!scanner.feed(bytes.as_bytes()));
        assert_eq!(scanner.held(), held, "{bytes}");
    }
}

/// What the whole text becomes, said in the slow and plain way.
fn replaced(rows: &[(&str, String)], text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(first) = rest.chars().next() {
        let longest = rows
            .iter()
            .filter(|(_, value)| rest.starts_with(value.as_str()))
            .max_by_key(|(_, value)| value.len());
        match longest {
            Some((placeholder, value)) => {
                out.push_str(placeholder);
                rest = &rest[value.len()..];
            }
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// Cuts a text into pieces.
fn pieces<'a>(text: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).chain([0, text.len()]).collect();
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

const PLACEHOLDERS: [&str; 3] = ["<PLACEHOLDER-1>", "<PLACEHOLDER-2>", "<PLACEHOLDER-3>"];

/// Values of few letters, so that they overlap, and a text that has them. No form of such a value differs
/// from it but base64, which has no letters of these only.
fn values_and_text() -> impl Strategy<Value = (Vec<String>, String)> {
    let values = proptest::collection::vec("[ab]{1,6}|[abc]{2,9}", 1..4);
    values.prop_flat_map(|values| {
        let some = values.clone();
        let piece =
            prop_oneof!["[abc]{0,5}", "[abc ]{0,3}", (0..values.len()).prop_map(move |i| some[i].clone())];
        (Just(values), proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()))
    })
}

proptest! {
    #[test]
    fn a_masked_stream_is_the_masked_text_however_it_is_cut(
        (values, text) in values_and_text(), cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let rows: Vec<_> = PLACEHOLDERS.iter().zip(&values).map(|(&placeholder, value)| (placeholder, &**value)).collect();
        let policy = secrets(&rows);
        let masker = masker(&policy, "own.example").unwrap();
        let longest = values.iter().map(String::len).max().unwrap();
        let (mut stream, mut out, mut fed) = (masker.stream(), Vec::new(), 0);
        for piece in pieces(text.as_bytes(), &cuts) {
            stream.feed(piece, &mut out);
            fed += piece.len();
            let held = stream.held();
            prop_assert!(held.len() < longest);
            prop_assert!(text.as_bytes()[..fed].ends_with(held));
            prop_assert!(values.iter().any(|value| value.len() > held.len() && value.as_bytes().starts_with(held)));
        }
        stream.finish(&mut out);
        // The first of equal values counts, as in the automaton.
        let mut plain: Vec<(&str, String)> = Vec::new();
        for (placeholder, value) in rows {
            if plain.iter().all(|(_, earlier)| earlier != value) {
                plain.push((placeholder, value.to_owned()));
            }
        }
        let out = String::from_utf8(out).unwrap();
        prop_assert_eq!(&out, &replaced(&plain, &text));
        // Neither what is left nor a placeholder's edge makes a value of these letters.
        for value in &values {
            prop_assert!(!out.contains(value.as_str()));
        }
    }

    #[test]
    fn no_value_of_any_letters_appears_in_a_masked_stream(
        value in "[ -~]{0,3}[!-~]{10,30}[äß]?[!-~]", before in "\\PC{0,20}", after in "\\PC{0,20}",
        form in 0..form::FORMS.len(), cuts in proptest::collection::vec(any::<usize>(), 0..8),
    ) {
        prop_assume!(!value.starts_with(' '));
        let policy = secrets(&[(P1, &value)]);
        let masker = masker(&policy, "own.example").unwrap();
        let written = form::FORMS[form](&value);
        let text = format!("{before}{written}{after}{value}");
        let out = String::from_utf8(masked(&masker, &pieces(text.as_bytes(), &cuts))).unwrap();
        prop_assert!(!out.contains(&value), "{}", out);
        prop_assert!(!out.contains(&written), "{}", out);
        let whole = masked(&masker, &[text.as_bytes()]);
        prop_assert_eq!(out.as_bytes(), &whole);
    }

    #[test]
    fn a_scanner_finds_what_a_stream_would_hide_before_it_is_gone(
        (values, text) in values_and_text(), cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let rows: Vec<_> = PLACEHOLDERS.iter().zip(&values).map(|(&placeholder, value)| (placeholder, &**value)).collect();
        let policy = secrets(&rows);
        let permit = permit(&policy, "own.example", 443);
        let mut scanner = policy.secrets().leak_scanner(&permit).unwrap();
        let (mut found, mut fed, mut passed) = (false, 0, 0);
        for piece in pieces(text.as_bytes(), &cuts) {
            found = scanner.feed(piece);
            if found {
                break;
            }
            fed += piece.len();
            passed = passed.max(fed - scanner.held());
        }
        prop_assert_eq!(found, values.iter().any(|value| text.contains(value.as_str())));
        // A reader that waits for what is held has got next to nothing of a value.
        for (start, _) in values.iter().flat_map(|value| text.match_indices(value.as_str())) {
            prop_assert!(passed < start + MIN_HELD);
        }
    }
}
