//! Mounting with the file-descriptor API of Linux 5.2 and later (`fsopen(2)`, `move_mount(2)`):
//! nothing is looked up by a path that an image has a say in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// A mount option.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Opt<'a> {
    /// Without a value.
    Flag(&'a str),
    /// `key=value`.
    Value(&'a str, &'a str),
}

/// A new file system, not attached anywhere.
pub(crate) fn create(kind: &str, options: &[Opt<'_>], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What a mount table shows where there is no disk.
    if !options.iter().any(|option| matches!(option, Opt::Value("source", _))) {
        fsconfig_set_string(&context, "source", kind)?;
    }
    for option in options {
        match option {
            Opt::Flag(key) => fsconfig_set_flag(&context, *key)?,
            Opt::Value(key, value) => fsconfig_set_string(&context, *key, *value)?,
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Attaches `mount` on the directory or file `target`.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", target, "", both)?)
}

/// Another mount of what `place` shows, not attached anywhere, with these attributes besides its own.
pub(crate) fn duplicate(place: impl AsFd, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(place, "", flags)?;
    if !attributes.is_empty() {
        sys::mount::set_attributes(mount.as_fd(), attributes, MountAttrFlags::empty())?;
    }
    Ok(mount)
}
