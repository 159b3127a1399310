//! The headers of an `exec`'s records.

#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::agent::{MAX_RECORD, RECORD_HEADER_LEN, RecordHeader};

fuzz_target!(|wire: [u8; RECORD_HEADER_LEN]| {
    if let Ok(header) = RecordHeader::decode(wire) {
        assert!(header.length <= MAX_RECORD);
        assert_eq!(header.encode(), wire);
    }
});
