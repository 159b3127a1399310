//! Image references: what parses means the same when it is written out, in full or short.

#![no_main]

use image::reference::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        for written in [reference.to_string(), reference.familiar()] {
            assert_eq!(written.parse::<Reference>().as_ref(), Ok(&reference), "{text:?} became {written:?}");
        }
    }
});
