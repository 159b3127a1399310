//! TLS towards the guest: reading its ClientHello, and answering it in the name of the host it asked for.

pub mod hello;

mod authority;
mod late;

pub use authority::{Authority, AuthorityError};
pub use late::LateAuthority;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;

/// The cryptography of both sides, made once.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}
