//! Whether a file is a kernel that the drivers can boot: an uncompressed x86-64 vmlinux with the
//! note that PVH boot needs.
//!
//! ELF: `elf(5)`; the note: `XEN_ELFNOTE_PHYS32_ENTRY`, `include/xen/interface/elfnote.h` of Linux.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use api::{Explain, Kind};
use thiserror::Error;

/// Not a kernel that can be booted.
#[derive(Debug, Error)]
pub enum InvalidKernel {
    /// It cannot be read.
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// A directory, a socket…
    #[error("it is not a regular file")]
    NotAFile,
    /// The compressed kernel that distributions ship as `vmlinuz`.
    #[error("it is a compressed kernel image (bzImage)")]
    BzImage,
    /// The kernel of an arm64 machine.
    #[error("it is a kernel for arm64")]
    Arm64Image,
    /// Compressed as a whole.
    #[error("it is a {0} archive")]
    Compressed(&'static str),
    /// Neither ELF nor anything else that we know.
    #[error("it is not an ELF file")]
    NotElf,
    /// ELF, but for another machine.
    #[error("it is an ELF file for another machine (type {0})")]
    Machine(u16),
    /// ELF for x86-64, but an object, a shared library, or 32-bit.
    #[error("it is an ELF file, but no executable of 64 bits")]
    NotExecutable,
    /// Its tables point outside of it.
    #[error("its ELF headers are damaged")]
    Damaged,
    /// A vmlinux without `CONFIG_PVH`, or a program.
    #[error("it is an ELF executable, but no kernel built with CONFIG_PVH=y")]
    NoPvh,
}

impl Explain for InvalidKernel {
    fn kind(&self) -> Kind {
        match self {
            Self::Io(error) => api::error::io_kind(error),
            _ => Kind::InvalidInput,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                "build one with `matchlock kernel build`".to_owned()
            }
            Self::Io(_) => return None,
            Self::BzImage | Self::Compressed(_) => {
                "an uncompressed vmlinux is needed: build one with `matchlock kernel build`, or extract it \
                 with the kernel's scripts/extract-vmlinux"
                    .to_owned()
            }
            _ => "an uncompressed x86-64 vmlinux with CONFIG_PVH=y is needed: build one with \
                  `matchlock kernel build`"
                .to_owned(),
        })
    }
}

const EHDR: usize = 64;
const PHDR: usize = 56;
const CLASS_64_LITTLE: [u8; 2] = [2, 1];
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;
const PT_NOTE: u32 = 4;

/// More program headers than any kernel has; a hostile table costs no more than this many reads.
const MAX_PHDRS: u16 = 64;

/// Longest note segment looked at, bytes; the kernel's has about 100.
const MAX_NOTES: u64 = 64 * 1024;

/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: u32 = 18;

/// Checks that `path` is a kernel that can be booted. Reads little of it.
///
/// # Errors
/// What it is instead.
pub fn check(path: &Path) -> Result<File, InvalidKernel> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(InvalidKernel::NotAFile);
    }
    check_file(&file)?;
    Ok(file)
}

fn check_file(file: &File) -> Result<(), InvalidKernel> {
    let mut start = [0; 0x206];
    let length = read_up_to(file, &mut start)?;
    let start = &start[..length];
    if !start.starts_with(b"\x7fELF") {
        return Err(something_else(start));
    }
    let header: &[u8; EHDR] = start.first_chunk().ok_or(InvalidKernel::Damaged)?;
    let machine = u16_at(header, 18);
    if machine != EM_X86_64 {
        return Err(InvalidKernel::Machine(machine));
    }
    if header[4..6] != CLASS_64_LITTLE || u16_at(header, 16) != ET_EXEC {
        return Err(InvalidKernel::NotExecutable);
    }
    let (table, entry_size, entries) = (u64_at(header, 32), u16_at(header, 54), u16_at(header, 56));
    if usize::from(entry_size) != PHDR || entries > MAX_PHDRS {
        return Err(InvalidKernel::Damaged);
    }
    for index in 0..u64::from(entries) {
        let mut entry = [0; PHDR];
        let at = table.checked_add(index * PHDR as u64).ok_or(InvalidKernel::Damaged)?;
        file.read_exact_at(&mut entry, at).map_err(damaged)?;
        if u32_at(&entry, 0) == PT_NOTE && has_pvh_note(file, u64_at(&entry, 8), u64_at(&entry, 32))? {
            return Ok(());
        }
    }
    Err(InvalidKernel::NoPvh)
}

/// What a file that is not ELF is, judged by its beginning: what is often taken for a kernel.
fn something_else(start: &[u8]) -> InvalidKernel {
    let has = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(magic));
    match () {
        () if has(0x202, b"HdrS") => InvalidKernel::BzImage,
        () if has(0x38, b"ARM\x64") => InvalidKernel::Arm64Image,
        () if has(0, b"\x1f\x8b") => InvalidKernel::Compressed("gzip"),
        () if has(0, b"\x28\xb5\x2f\xfd") => InvalidKernel::Compressed("zstd"),
        () if has(0, b"\xfd7zXZ") => InvalidKernel::Compressed("xz"),
        () if has(0, b"BZh") => InvalidKernel::Compressed("bzip2"),
        () => InvalidKernel::NotElf,
    }
}

/// Walks the notes of one segment: name size, descriptor size, type, then both padded to 4 bytes.
fn has_pvh_note(file: &File, at: u64, size: u64) -> Result<bool, InvalidKernel> {
    let size = usize::try_from(size.min(MAX_NOTES)).map_err(|_| InvalidKernel::Damaged)?;
    let mut notes = vec![0; size];
    file.read_exact_at(&mut notes, at).map_err(damaged)?;
    let mut rest = &notes[..];
    while let Some((head, after)) = rest.split_first_chunk::<12>() {
        let padded = |at| (u32_at(head, at) as usize).next_multiple_of(4);
        let (name, description) = (padded(0), padded(4));
        if u32_at(head, 8) == PHYS32_ENTRY && after.starts_with(b"Xen\0") {
            return Ok(true);
        }
        let Some(next) = name.checked_add(description).and_then(|skip| after.get(skip..)) else { break };
        rest = next;
    }
    Ok(false)
}

fn damaged(error: io::Error) -> InvalidKernel {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => InvalidKernel::Damaged,
        _ => InvalidKernel::Io(error),
    }
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes[at..].first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    /// An ELF file with one segment of notes.
    fn elf(class: u8, kind: u16, machine: u16, notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; EHDR + PHDR];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        file[16..18].copy_from_slice(&kind.to_le_bytes());
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32] = EHDR as u8;
        file[54] = PHDR as u8;
        file[56] = 1;
        file[EHDR] = PT_NOTE as u8;
        file[EHDR + 8] = (EHDR + PHDR) as u8;
        file[EHDR + 32..EHDR + 40].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file.extend(notes);
        file
    }

    fn note(name: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for field in [name.len() as u32, description.len() as u32, kind] {
            note.extend(field.to_le_bytes());
        }
        for part in [name, description] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    fn checked(content: &[u8]) -> Result<(), InvalidKernel> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        check(file.path()).map(|_| ())
    }

    #[test]
    fn a_vmlinux_is_known_by_its_pvh_note() {
        let pvh = note(b"Xen\0", PHYS32_ENTRY, &[0; 8]);
        let others = [note(b"GNU\0", 3, &[1; 20]), note(b"Linux\0", 0x100, b"abc"), pvh].concat();
        checked(&elf(2, ET_EXEC, EM_X86_64, &others)).unwrap();
        let without = elf(2, ET_EXEC, EM_X86_64, &note(b"GNU\0", PHYS32_ENTRY, &[1; 20]));
        assert!(matches!(checked(&without), Err(InvalidKernel::NoPvh)));
    }

    #[test]
    fn everything_else_is_called_what_it_is() {
        let at = |at: usize, magic: &[u8]| [&vec![0; at], magic, &[0; 600]].concat();
        let named = |content: &[u8]| checked(content).unwrap_err().to_string();
        assert!(named(&at(0x202, b"HdrS")).contains("bzImage"));
        assert!(named(&at(0x38, b"ARM\x64")).contains("arm64"));
        assert!(named(b"\x1f\x8b....").contains("gzip"));
        assert!(named(b"#!/bin/sh\n").contains("not an ELF file"));
        assert!(named(b"").contains("not an ELF file"));
        assert!(named(&elf(2, ET_EXEC, 183, &[])).contains("another machine"));
        assert!(named(&elf(1, ET_EXEC, EM_X86_64, &[])).contains("no executable of 64 bits"));
        assert!(named(&elf(2, 3, EM_X86_64, &[])).contains("no executable of 64 bits"));
        assert!(matches!(check(Path::new("/")), Err(InvalidKernel::NotAFile)));
        assert!(matches!(check(Path::new("/nowhere")), Err(InvalidKernel::Io(_))));
    }

    proptest! {
        /// Damaged tables and notes: an error, never a panic and never much memory.
        #[test]
        fn damaged_files_are_refused(
            notes in prop::collection::vec(any::<u8>(), 0..64),
            changes in prop::collection::vec((0usize..200, any::<u8>()), 1..8),
            length in 0usize..260,
        ) {
            let mut file = elf(2, ET_EXEC, EM_X86_64, &notes);
            for (at, byte) in changes {
                if let Some(place) = file.get_mut(at) {
                    *place = byte;
                }
            }
            file.truncate(length);
            prop_assert!(checked(&file).is_err() || notes.windows(4).any(|name| name == b"Xen\0"));
        }
    }
}
