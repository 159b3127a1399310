//! Maps of sparse files: where in the file the stored bytes belong, the rest being holes.
//! GNU tar has written them in four ways: in headers, and as pax records of versions 0.0, 0.1
//! and 1.0, the last keeping the map itself before the content.

use super::header::number;
use super::pax::decimal;

/// The most pieces a sparse file may be in: 4 MiB of memory.
pub(super) const MAX_SEGMENTS: usize = 1 << 18;

/// Stored bytes that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::layer) struct Segment {
    /// Where they begin in the file.
    pub(in crate::layer) offset: u64,
    /// How many.
    pub(in crate::layer) length: u64,
}

/// What pax records tell of a map.
#[derive(Debug, Default)]
pub(super) struct PaxMap {
    /// The file's path; the header's is made up.
    pub(super) name: Option<Vec<u8>>,
    /// The file's size with its holes.
    pub(super) size: Option<u64>,
    /// The map is written before the content (version 1.0).
    pub(super) in_content: bool,
    /// Offsets and lengths in turn.
    pub(super) numbers: Vec<u64>,
}

impl PaxMap {
    /// Takes a record, without its `GNU.sparse.`.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        let number = |text| decimal(text).ok_or("a sparse file's map has a number that is none");
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number(value)?),
            b"major" => self.in_content = number(value)? == 1,
            b"offset" | b"numbytes" => self.push(number(value)?)?,
            b"map" => {
                for part in value.split(|byte| *byte == b',') {
                    self.push(number(part)?)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, number: u64) -> Result<(), &'static str> {
        if self.numbers.len() >= 2 * MAX_SEGMENTS {
            return Err("a sparse file is in too many pieces");
        }
        self.numbers.push(number);
        Ok(())
    }
}

/// Adds the pairs of a header's field to a map; an empty pair is the end.
pub(super) fn add_pairs(field: &[u8], map: &mut Vec<Segment>) -> Result<(), &'static str> {
    for pair in field.chunks_exact(24) {
        let (offset, length) = pair.split_at(12);
        if offset[0] == 0 && length[0] == 0 {
            break;
        }
        let part = |field| number(field).and_then(|value| u64::try_from(value).ok());
        let (Some(offset), Some(length)) = (part(offset), part(length)) else {
            return Err("a sparse file's map has a number that is none");
        };
        if map.len() >= MAX_SEGMENTS {
            return Err("a sparse file is in too many pieces");
        }
        map.push(Segment { offset, length });
    }
    Ok(())
}

/// The map that is written before the content, as it is read.
#[derive(Debug, Default)]
pub(super) struct MapText {
    /// Offsets and lengths in turn.
    pub(super) numbers: Vec<u64>,
    wanted: Option<usize>,
    line: Vec<u8>,
}

impl MapText {
    /// Whether all the numbers are there that the first line announces.
    pub(super) fn is_complete(&self) -> bool {
        self.wanted == Some(self.numbers.len())
    }

    /// Reads another block; what follows the last number is padding.
    pub(super) fn add(&mut self, block: &[u8]) -> Result<(), &'static str> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let number = decimal(&self.line).ok_or("a sparse file's map has a number that is none")?;
            self.line.clear();
            if self.wanted.is_some() {
                self.numbers.push(number);
            } else {
                let pairs = usize::try_from(number).ok().filter(|pairs| *pairs <= MAX_SEGMENTS);
                self.wanted = Some(2 * pairs.ok_or("a sparse file is in too many pieces")?);
            }
        }
        // The longest number has 20 digits.
        if self.line.len() > 20 { Err("a sparse file's map has a number that is none") } else { Ok(()) }
    }
}

/// The map of these numbers.
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Segment>, &'static str> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a sparse file's map has an offset without a length");
    }
    Ok(pairs.iter().map(|[offset, length]| Segment { offset: *offset, length: *length }).collect())
}

/// Checks that the pieces follow each other, end within the file and are just what is stored.
pub(super) fn check(map: &[Segment], size: u64, stored: u64) -> Result<(), &'static str> {
    let mut end = 0_u64;
    let mut sum = 0_u64;
    for segment in map {
        if segment.offset < end {
            return Err("a sparse file's pieces overlap");
        }
        end = segment
            .offset
            .checked_add(segment.length)
            .filter(|end| *end <= size)
            .ok_or("a sparse file's piece lies beyond its end")?;
        sum += segment.length;
    }
    if sum == stored { Ok(()) } else { Err("a sparse file's pieces are not what is stored") }
}
