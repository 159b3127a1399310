//! What commands in a sandbox have in their environment because of its network: placeholders of
//! secrets, and where the certificates are that its connections are answered with.

use api::network::NetworkSpec;
use proto::boot::{CA_BUNDLE, CA_CERTIFICATE};

/// Variables that name a file with all certificates to be trusted: OpenSSL's, Requests', curl's, Git's.
const BUNDLES: [&str; 4] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"];

/// Variables that name a file with certificates to be trusted besides those that are built in: Node's.
const ADDITIONS: [&str; 1] = ["NODE_EXTRA_CA_CERTS"];

/// The variables, to be put between the image's and the user's.
pub(crate) fn of_network(network: &NetworkSpec) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    if network.looks_inside() {
        let files = BUNDLES.map(|name| (name, CA_BUNDLE)).into_iter();
        let files = files.chain(ADDITIONS.map(|name| (name, CA_CERTIFICATE)));
        variables.extend(files.map(|(name, path)| (name.to_owned(), path.to_owned())));
    }
    variables.extend(network.secrets.iter().map(|(name, secret)| (name.clone(), secret.placeholder.clone())));
    variables
}

#[cfg(test)]
mod tests {
    use api::network::{NetworkSpec, SecretSpec};

    use super::*;

    fn names(network: &NetworkSpec) -> Vec<String> {
        let variables = of_network(network);
        variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    #[test]
    fn only_a_network_that_is_looked_into_needs_trust() {
        assert_eq!(names(&NetworkSpec::default()), Vec::<String>::new());
        let intercepted = names(&NetworkSpec { intercept: true, ..NetworkSpec::default() });
        assert_eq!(intercepted.len(), BUNDLES.len() + ADDITIONS.len());
        let secret = SecretSpec { placeholder: "PLACE".into(), hosts: vec!["h".into()], mask: true };
        let secrets = [("KEY".to_owned(), secret)].into();
        let sealed = names(&NetworkSpec { secrets, ..NetworkSpec::default() });
        assert_eq!(sealed.last().unwrap(), "KEY=PLACE");
    }
}
