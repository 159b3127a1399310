//! Images from where they come to where they are kept, against the real tools: `docker-registry`
//! and `skopeo`; and against servers and archives that are not what they should be.

#![expect(clippy::unwrap_used, reason = "a test fails by unwrapping, and says where")]

mod child;
mod example;
mod import;
mod import_hostile;
mod pull;
mod pull_auth;
mod pull_faults;
mod pull_tls;
mod registry;
mod server;
mod store;
mod token;
