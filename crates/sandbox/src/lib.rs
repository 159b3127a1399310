//! Sandboxes: from an image and a specification to a VM that runs commands, and to nothing again.
//!
//! [`Sandbox::launch`] is the recipe; [`agent`] runs commands in it; dropping a [`Sandbox`] ends
//! it; [`publish`] makes ports of this machine lead into it. Terminals and exit codes live in `cli`, how a VM is made in `vmm`, images in `image`.

pub mod agent;
pub mod boot;
pub mod command;
pub mod diagnose;
pub mod disk;
mod ext4;
pub mod home;
mod launch;
pub mod log;
mod nameless;
pub mod process;
pub mod publish;
mod random;
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
