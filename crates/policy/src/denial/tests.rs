//! Attacks on [`super`].
