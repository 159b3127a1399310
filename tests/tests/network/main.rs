//! The sealed network, from inside real sandboxes against real servers. Names say what must hold, and
//! those of attacks say the attack: the rows of the promises in the documentation.
//!
//! All of it runs in one small internet (`harness::site`), from which no packet can leave.

mod attacks;
mod clients;
mod dns;
mod explained;
mod frames;
mod hooks;
mod modes;
mod secrets;
mod smuggling;
mod streams;
mod trust;
