//! x
mod attacks;
mod clients;
mod secrets;
mod streams;
