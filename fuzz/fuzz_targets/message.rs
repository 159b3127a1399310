//! Messages from the other side: every type that is read from the channel.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::agent::{Answer, Ended, Request};
use proto::boot::{BootConfig, Control, Hello, Progress};
use proto::forward::{self, Connect};
use proto::message::{MAX_MESSAGE, PREFIX_LEN, decode, encode, length};
use serde::{Serialize, de::DeserializeOwned};

/// What decodes encodes to bytes that mean the same.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) {
    if let Ok(value) = decode::<T>(body) {
        let wire = encode(&value).expect("it came in a message, so it fits in one");
        let (prefix, body) = wire.split_first_chunk::<PREFIX_LEN>().expect("a message has a prefix");
        assert_eq!(length(*prefix), Ok(body.len()));
        assert_eq!(decode::<T>(body).as_ref(), Ok(&value));
    }
}

fuzz_target!(|wire: &[u8]| {
    let Some((prefix, body)) = wire.split_first_chunk::<PREFIX_LEN>() else { return };
    assert!(length(*prefix).is_err() || length(*prefix).is_ok_and(|length| length <= MAX_MESSAGE as usize));
    check::<Request>(body);
    check::<Answer>(body);
    check::<Ended>(body);
    check::<Hello>(body);
    check::<BootConfig>(body);
    check::<Progress>(body);
    check::<Control>(body);
    check::<Connect>(body);
    check::<forward::Answer>(body);
});
