//! Sandboxes: from an image and a specification to a VM that runs commands, and to nothing again.
//!
//! [`Sandbox::launch`] is the recipe; [`agent`] runs commands in it; dropping a [`Sandbox`] ends
//! it; [`publish`] makes ports of this machine lead into it. Terminals and exit codes live in `cli`, how a VM is made in `vmm`, images in `image`.

pub mod agent;
pub mod boot;
pub mod command;
pub mod diagnose;
pub mod home;
mod launch;
pub mod publish;
mod random;
pub mod scratch;
pub mod timings;

pub use launch::{LaunchError, Sandbox};
