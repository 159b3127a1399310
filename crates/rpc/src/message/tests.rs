use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

proptest! {
    /// Any bytes are a request, nothing, or refused with one of the two codes.
    #[test]
    fn any_line_is_understood_or_refused(line in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(refusal) = parse(&line) {
            prop_assert!([Code::PARSE, Code::INVALID_REQUEST, Code::INVALID_PARAMS].contains(&refusal.failure.code));
        }
    }

    /// What a client sends is what a session gets.
    #[test]
    fn requests_survive_the_way(number in any::<i64>(), text in ".{0,60}", method in ".{1,30}", value in ".{0,99}") {
        for id in [Some(Id::Number(number)), Some(Id::Text(text)), None] {
            let line = call(id.as_ref(), &method, &json!({ "key": value }));
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let incoming = parse(&line).unwrap().unwrap();
            prop_assert_eq!((incoming.id, &*incoming.method), (id, &*method));
            prop_assert_eq!(serde_json::from_str::<Value>(incoming.params).unwrap(), json!({ "key": value }));
        }
    }

    /// The lines made by hand are what a serialiser would make.
    #[test]
    fn lines_with_data_are_json(text in ".{0,30}", bytes in prop::collection::vec(any::<u8>(), 0..999)) {
        let line = DataLines::new(None, "exec_stream.stdout", &Id::Text(text.clone())).line(&bytes);
        prop_assert_eq!(line.last(), Some(&b'\n'));
        let value: Value = serde_json::from_slice(&line).unwrap();
        let expected = json!({
            "jsonrpc": "2.0",
            "method": "exec_stream.stdout",
            "params": { "id": text, "data": encode(&bytes) },
        });
        prop_assert_eq!(value, expected);
    }
}

#[test]
fn a_long_identifier_is_refused() {
    let line = |length: usize| format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"m"}}"#, "x".repeat(length));
    assert!(parse(line(MAX_ID).as_bytes()).is_ok());
    assert!(parse(line(MAX_ID + 1).as_bytes()).is_err());
}

#[test]
fn unknown_parameters_are_ignored_and_wrong_ones_named() {
    #[derive(Debug, PartialEq, Eq, Deserialize)]
    struct Known {
        a: u8,
    }
    assert_eq!(params::<Known>("m", r#"{"a":1,"b":{"c":[2]}}"#), Ok(Known { a: 1 }));
    let failure = params::<Known>("m", r#"{"a":"x"}"#).unwrap_err();
    assert_eq!(failure.code, Code::INVALID_PARAMS);
    assert!(failure.message.starts_with("m: "), "{failure}");
}

#[test]
fn failures_survive_the_way_and_unknown_kinds_do_not_hurt() {
    let failure =
        Failure { exit_code: Some(127), ..Failure::new(Code::EXEC, Kind::NotFound, "no such thing") };
    let failure = failure.with_hint("look again");
    let line: Value = serde_json::from_slice(&response(Some(&Id::Number(1)), &Err(failure.clone()))).unwrap();
    let data = json!({ "kind": "not_found", "hint": "look again", "exit_code": 127 });
    let error = json!({ "code": -32001, "message": "no such thing", "data": data });
    assert_eq!(line, json!({ "jsonrpc": "2.0", "id": 1, "error": error }));
    assert_eq!(serde_json::from_value::<Failure>(error).unwrap(), failure);
    for data in [json!({ "kind": "of_the_future" }), Value::Null] {
        let failure: Failure =
            serde_json::from_value(json!({ "code": -1, "message": "m", "data": data })).unwrap();
        assert_eq!(failure.kind, Kind::Internal);
    }
}
