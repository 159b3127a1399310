//! The certificate authority of one sandbox: made in memory, gone with it. Its private key is never
//! written anywhere, so a certificate of one sandbox is worth nothing in another.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use policy::host::Host;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use thiserror::Error;

use super::provider;

/// Leaf certificates that are kept, about 1 KiB each. A guest that asks for more hosts costs a signature
/// for each, not memory.
const MAX_LEAVES: usize = 1024;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How far back certificates are valid: the guest's clock may be behind.
const BEFORE: Duration = DAY.saturating_mul(2);

/// How long the authority is valid: longer than a sandbox lives between two starts.
const AUTHORITY_AHEAD: Duration = DAY.saturating_mul(365);

/// How long a leaf is valid: some clients refuse what lasts longer than public authorities may issue.
const LEAF_AHEAD: Duration = DAY.saturating_mul(90);

/// A leaf older than this is made anew.
const LEAF_USE: Duration = DAY.saturating_mul(30);

/// The longest common name that X.509 allows.
const MAX_COMMON_NAME: usize = 64;

/// The certificate authority of one sandbox.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    /// One key for all leaves: whoever had it would have the process that has the authority's key too.
    leaf_key: KeyPair,
    leaf_signer: Arc<dyn SigningKey>,
    leaves: Mutex<Leaves>,
}

#[derive(Default)]
struct Leaves {
    by_host: HashMap<Host, Leaf>,
    /// Counts uses, to find the leaf that was not used for longest.
    uses: u64,
}

struct Leaf {
    certified: Arc<CertifiedKey>,
    made: SystemTime,
    last_use: u64,
}

/// A certificate could not be made.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// No random numbers.
    #[error("no random numbers for a certificate")]
    Random,
    /// Keys and certificates.
    #[error("cannot make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// Their use.
    #[error("cannot use a certificate")]
    Tls(#[from] rustls::Error),
}

impl Authority {
    /// A new one, with keys of its own.
    ///
    /// # Errors
    ///
    /// The system has no random numbers, or the cryptography refuses to work.
    pub fn new() -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = params(AUTHORITY_AHEAD)?;
        params.distinguished_name.push(DnType::CommonName, "Matchlock sandbox CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;

        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = PrivatePkcs8KeyDer::from(leaf_key.serialized_der()).into();
        let leaf_signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&der)?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem: certificate.pem(),
            certificate: certificate.into(),
            leaf_key,
            leaf_signer,
            leaves: Mutex::default(),
        })
    }

    /// Its certificate, for the guest's trust stores.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// How to answer a client that wants to speak to `host`, in one of the protocols `alpn` or, if there is
    /// none, whatever it offers.
    ///
    /// Sessions are never resumed: a ticket for one host must be of no use with the name of another, and a
    /// new handshake costs the host little.
    ///
    /// # Errors
    ///
    /// See [`AuthorityError`].
    pub fn server_config(&self, host: &Host, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, AuthorityError> {
        let certified = self.leaf(host)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// The certificate for `host`, from the cache or new.
    fn leaf(&self, host: &Host) -> Result<Arc<CertifiedKey>, AuthorityError> {
        if let Some(certified) = self.cached(host) {
            return Ok(certified);
        }
        // Signed without the lock: two at the same time are two good certificates.
        let mut params = params(LEAF_AHEAD)?;
        let name = host.to_string();
        params.subject_alt_names = vec![match host {
            Host::Name(_) => SanType::DnsName(name.as_str().try_into()?),
            Host::Address(address) => SanType::IpAddress(*address),
        }];
        if name.len() <= MAX_COMMON_NAME {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&self.leaf_key, &self.issuer)?;
        let chain = vec![certificate.into(), self.certificate.clone()];
        let certified = Arc::new(CertifiedKey::new(chain, Arc::clone(&self.leaf_signer)));
        self.remember(host, &certified);
        Ok(certified)
    }

    fn cached(&self, host: &Host) -> Option<Arc<CertifiedKey>> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        leaves.uses += 1;
        let now = leaves.uses;
        let leaf = leaves.by_host.get_mut(host)?;
        // A clock that was set back makes an age that cannot be told: make it anew then, too.
        if leaf.made.elapsed().is_ok_and(|age| age < LEAF_USE) {
            leaf.last_use = now;
            return Some(Arc::clone(&leaf.certified));
        }
        None
    }

    fn remember(&self, host: &Host, certified: &Arc<CertifiedKey>) {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if leaves.by_host.len() >= MAX_LEAVES && !leaves.by_host.contains_key(host) {
            // Looking at all of them costs less than the signature that was just made.
            let oldest =
                leaves.by_host.iter().min_by_key(|(_, leaf)| leaf.last_use).map(|(host, _)| host.clone());
            if let Some(oldest) = oldest {
                leaves.by_host.remove(&oldest);
            }
        }
        let leaf = Leaf { certified: Arc::clone(certified), made: SystemTime::now(), last_use: leaves.uses };
        leaves.by_host.insert(host.clone(), leaf);
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

/// What all certificates have in common: a serial number that is used once (clients refuse two certificates
/// with the same), times, and the identifiers that strict clients ask for.
fn params(ahead: Duration) -> Result<CertificateParams, AuthorityError> {
    let mut serial = [0; 16];
    provider().secure_random.fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    // Positive, and its length always the same.
    serial[0] = serial[0] & 0x7f | 0x40;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial.to_vec().into());
    params.not_before = epoch + now.saturating_sub(BEFORE);
    params.not_after = epoch + now + ahead;
    params.distinguished_name = DistinguishedName::new();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

#[cfg(test)]
mod tests;
