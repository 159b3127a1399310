//! Whom to trust with the certificates of servers: as the host's own programs do.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_platform_verifier::BuilderVerifierExt;

use super::DialError;
use crate::tls::provider;

/// Whom to trust with the certificates of servers.
#[derive(Debug, Clone)]
pub enum Roots {
    /// Whom the host's system trusts.
    Platform,
    /// These files of certificates (PEM), and those in these directories, in place of the system's.
    Files {
        /// Files.
        files: Vec<PathBuf>,
        /// Directories.
        directories: Vec<PathBuf>,
    },
    /// These only.
    These(Arc<RootCertStore>),
}

impl Roots {
    /// As the environment says: `SSL_CERT_FILE` and `SSL_CERT_DIR`, which the host's other programs read too, or
    /// the system.
    #[must_use]
    pub fn of_host() -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let files: Vec<_> = set("SSL_CERT_FILE").map(PathBuf::from).into_iter().collect();
        let directories: Vec<_> = set("SSL_CERT_DIR").iter().flat_map(env::split_paths).collect();
        if files.is_empty() && directories.is_empty() {
            Self::Platform
        } else {
            Self::Files { files, directories }
        }
    }

    /// A client that verifies servers by them.
    pub(super) fn client_config(&self) -> Result<ClientConfig, DialError> {
        let failed = |error: rustls::Error| DialError::Roots(error.to_string());
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        let builder = self.verifier(builder).map_err(failed)?;
        Ok(builder.with_no_client_auth())
    }

    fn verifier(
        &self,
        builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    ) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
        match self {
            Self::Platform => builder.with_platform_verifier(),
            Self::Files { files, directories } => {
                let store = load(files, directories);
                if store.is_empty() {
                    return Err(rustls::Error::General(
                        "SSL_CERT_FILE and SSL_CERT_DIR have none".to_owned(),
                    ));
                }
                Ok(builder.with_root_certificates(store))
            }
            Self::These(store) => Ok(builder.with_root_certificates(Arc::clone(store))),
        }
    }
}

/// All certificates in there. What cannot be read or is none is left out: to trust fewer is safe, and trust
/// stores have all sorts of things in them.
fn load(files: &[PathBuf], directories: &[PathBuf]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    let mut add = |path: &Path| match CertificateDer::pem_file_iter(path) {
        Ok(certificates) => {
            store.add_parsable_certificates(certificates.filter_map(Result::ok));
        }
        Err(error) => tracing::debug!(path = %path.display(), %error, "no certificates"),
    };
    files.iter().for_each(|file| add(file));
    for directory in directories {
        let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| path.is_file()).for_each(|path| add(&path));
    }
    store
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Authority;

    #[test]
    fn certificates_are_read_from_files_and_directories_and_other_things_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (Authority::new().unwrap(), Authority::new().unwrap());
        let file = directory.path().join("bundle.pem");
        fs::write(&file, format!("# trust\n{}{}", one.certificate_pem(), two.certificate_pem())).unwrap();
        let inside = directory.path().join("certs");
        fs::create_dir_all(inside.join("directory")).unwrap();
        fs::write(inside.join("one.0"), one.certificate_pem()).unwrap();
        fs::write(inside.join("README"), "no certificate").unwrap();
        assert_eq!(load(&[file.clone(), "/missing".into()], &[]).len(), 2);
        assert_eq!(load(&[], &[inside.clone(), "/missing".into()]).len(), 1);
        assert_eq!(load(&[file], &[inside]).len(), 3);
    }

    #[test]
    fn without_any_certificate_there_is_no_connection() {
        let roots = Roots::Files { files: vec!["/missing".into()], directories: Vec::new() };
        assert!(matches!(roots.client_config(), Err(DialError::Roots(_))));
    }
}
