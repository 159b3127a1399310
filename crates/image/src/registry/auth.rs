//! Authorization: what to answer a registry's challenge with (RFC 9110 section 11, and the token
//! protocol of the distribution project). An answer lives as long as the registry takes it; a
//! fresh challenge, as when a token has expired, gets a fresh answer.

use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;

use super::credentials::Credential;
use super::{Client, RegistryError, bounded, may_talk_to};

/// The most bytes of a token server's answer.
const MAX_TOKEN: u64 = 1 << 20;

/// Who we are to a token server; it wants a name.
const CLIENT_ID: &str = "matchlock";

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// A token server's answer.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Client {
    /// A value for the `Authorization` header that answers a challenge; `refused` is the one the
    /// registry did not take. If another request has got a new one meanwhile, that is it.
    pub(super) async fn authorize(
        &self,
        headers: &HeaderMap,
        refused: Option<HeaderValue>,
    ) -> Result<HeaderValue, RegistryError> {
        let mut current = self.authorization.lock().await;
        if let Some(newer) = current.clone().filter(|it| Some(it) != refused.as_ref()) {
            return Ok(newer);
        }
        let value = match challenge(headers) {
            Some(Challenge::Bearer { realm, service }) => self.token(&realm, service.as_deref()).await?,
            Some(Challenge::Basic) => match self.credential().await? {
                Some(Credential::Password { user, password }) => {
                    self.header(self.http.get(self.base.clone()).basic_auth(user, Some(password)))?
                }
                Some(Credential::IdentityToken(_)) => {
                    return Err(
                        self.bad_challenge("it wants a password, but there is only an identity token")
                    );
                }
                None => return Err(self.denied()),
            },
            None => return Err(self.bad_challenge("neither Basic nor Bearer")),
        };
        *current = Some(value.clone());
        Ok(value)
    }

    /// The user's credential for this repository.
    pub(super) async fn credential(&self) -> Result<Option<Credential>, RegistryError> {
        Ok(self.options.credentials.find(&self.reference).await?)
    }

    /// A bearer token for pulling from this repository, and nothing else.
    async fn token(&self, realm: &str, service: Option<&str>) -> Result<HeaderValue, RegistryError> {
        let mut url = Url::parse(realm).map_err(|_| self.bad_challenge("its realm is not a URL"))?;
        if !may_talk_to(&url, self.options.plain_http) {
            return Err(self.bad_challenge("its realm is not protected by TLS"));
        }
        // Who cannot tell us the secret can still let us in as anybody.
        let credential = match self.credential().await {
            Ok(credential) => credential,
            Err(error) => {
                tracing::warn!(%error, "asking the registry without credentials");
                None
            }
        };
        let scope = format!("repository:{}:pull", self.reference.repository());
        let mut parameters = vec![("scope", scope.as_str())];
        parameters.extend(service.map(|service| ("service", service)));
        let request = match credential {
            Some(Credential::IdentityToken(secret)) => {
                parameters.extend([("grant_type", "refresh_token"), ("client_id", CLIENT_ID)]);
                parameters.push(("refresh_token", secret.as_str()));
                let mut form = self.base.clone();
                form.query_pairs_mut().clear().extend_pairs(parameters);
                self.http
                    .post(url)
                    .header("Content-Type", "application/x-www-form-urlencoded")
                    .body(form.query().unwrap_or_default().to_owned())
            }
            Some(Credential::Password { user, password }) => {
                url.query_pairs_mut().extend_pairs(parameters);
                self.http.get(url).basic_auth(user, Some(password))
            }
            None => {
                url.query_pairs_mut().extend_pairs(parameters);
                self.http.get(url)
            }
        };
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let response = self.checked(response, "token").await?;
        let body = bounded(response, MAX_TOKEN, "token").await?;
        let token: Token = serde_json::from_slice(&body)
            .map_err(|_| self.bad_challenge("its token server's answer is malformed"))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| self.bad_challenge("its token server gives no token"))?;
        self.header(self.http.get(self.base.clone()).bearer_auth(token))
    }

    /// The header as `reqwest` makes it, marked as sensitive.
    fn header(&self, request: RequestBuilder) -> Result<HeaderValue, RegistryError> {
        let request = request.build().map_err(|_| self.bad_challenge("the answer does not fit a header"))?;
        let header = request.headers().get(reqwest::header::AUTHORIZATION).cloned();
        header.ok_or_else(|| self.bad_challenge("the answer does not fit a header"))
    }

    fn bad_challenge(&self, reason: &'static str) -> RegistryError {
        RegistryError::Challenge { registry: self.reference.registry().to_owned(), reason }
    }

    fn denied(&self) -> RegistryError {
        RegistryError::Denied {
            registry: self.reference.registry().to_owned(),
            repository: self.reference.repository().to_owned(),
            with_credentials: false,
            message: String::new(),
        }
    }
}

/// The challenge to answer: Bearer if it is offered, since it is narrower.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges: Vec<Challenge> =
        values.flat_map(ChallengeParser::new).map_while(Result::ok).filter_map(|it| known(&it)).collect();
    let bearer = challenges.iter().position(|it| matches!(it, Challenge::Bearer { .. }));
    challenges.into_iter().nth(bearer.unwrap_or(0))
}

fn known(challenge: &ChallengeRef<'_>) -> Option<Challenge> {
    let parameter = |name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        Some(Challenge::Basic)
    } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
        Some(Challenge::Bearer { realm: parameter("realm")?, service: parameter("service") })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        challenge(&headers)
    }

    #[test]
    fn the_narrowest_known_challenge_is_answered() {
        let bearer = Challenge::Bearer { realm: "https://t/a?b=c".into(), service: Some("s t".into()) };
        let text = r#"bearer realm="https://t/a?b=c",service="s t",scope="repository:a:pull""#;
        assert_eq!(of(&[text]), Some(bearer));
        assert_eq!(of(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert!(matches!(of(&["Basic realm=\"x\"", text]), Some(Challenge::Bearer { .. })));
        assert_eq!(of(&["Digest realm=\"x\", nonce=\"y\"", "Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(of(&["Bearer service=\"no realm\""]), None);
        for nothing in [&[][..], &["Negotiate"], &["=,\"\\"], &["Bearer realm=\"open"]] {
            assert_eq!(of(nothing), None);
        }
    }
}
