//! Sandboxes: from an image and a specification to a VM that runs commands, and to nothing again.
//!
//! [`Created`] is one on record, [`Created::start`] the recipe that makes a [`Sandbox`] of it; [`agent`]
//! runs commands in that, [`publish`] makes ports of this machine lead into it, and dropping it ends it.
//! [`tenure`] is the record and its undoing, [`reconcile`] the same for a sandbox whose owner is gone.
//! [`diagnose`] says what a host lacks, [`prepare`] what root can do about it. Terminals and exit codes
//! live in `cli`, how a VM is made in `vmm`, images in `image`.

pub mod agent;
pub mod boot;
pub mod command;
pub mod diagnose;
pub mod disk;
mod ext4;
pub mod home;
mod identity;
mod launch;
pub mod log;
pub mod network;
pub mod prepare;
pub mod process;
pub mod publish;
pub mod random;
pub mod rebuild;
pub mod reconcile;
mod running;
pub mod scratch;
pub mod state;
pub mod tenure;
pub mod timings;
pub mod volume;

pub use home::SOCKET;
pub use launch::{Blueprint, Created, Engine, LaunchError, Site};
pub use running::{Sandbox, UNMOUNT_MARGIN, Why};
