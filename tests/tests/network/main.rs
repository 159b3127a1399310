//! x
mod attacks;
mod clients;
mod dns;
mod modes;
mod secrets;
mod streams;
