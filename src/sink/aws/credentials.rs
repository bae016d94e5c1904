//! Credentials that are asked for anew when the service refuses those we have.
//!
//! The SDK's chain parses the profile files once for the life of a client, and its cache keeps what it got until that expires.
//! A process that runs for weeks meets more: a profile that is written after the start, keys that are rotated, a session that
//! is revoked before its time. So the chain is built anew each time, and asked when
//!
//! - there are no credentials yet, or they are about to expire;
//! - they have no end and are older than [`AGE_MAX`];
//! - the service refused them, though not more often than each [`ASK_EVERY`].
//!
//! Otherwise an answer of the chain is served from here, and the SDK's own cache is off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Settings;

/// How long credentials without an end are taken for granted; as the SDK's cache has it.
const AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// How long before their end credentials are replaced: longer than a request takes to arrive.
const EXPIRY_RESERVE: Duration = Duration::from_secs(60);

/// Credentials that a service refused are not asked for more often than this.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Time limit of asking the whole chain.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a service has refused the credentials that we have.
pub type Refused = Arc<AtomicBool>;

/// The provider of one client.
pub(super) struct Renewing {
    settings: Settings,
    refused: Refused,
    known: Mutex<Option<Known>>,
}

struct Known {
    credentials: Credentials,
    asked: Instant,
}

impl std::fmt::Debug for Renewing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewing").finish_non_exhaustive()
    }
}

impl Renewing {
    pub(super) fn new(settings: Settings, refused: Refused) -> Self {
        Self { settings, refused, known: Mutex::new(None) }
    }

    async fn current(&self) -> provider::Result {
        // Held while asking: others wait for the answer instead of asking beside.
        let mut known = self.known.lock().await;
        if let Some(known) = &*known
            && !is_due(known, self.refused.load(Relaxed), Instant::now(), SystemTime::now())
        {
            return Ok(known.credentials.clone());
        }
        let asked = Instant::now();
        match timeout(ASK_TIMEOUT, self.ask()).await.unwrap_or(Err(CredentialsError::provider_timed_out(ASK_TIMEOUT))) {
            Ok(credentials) => {
                self.refused.store(false, Relaxed);
                *known = Some(Known { credentials: credentials.clone(), asked });
                Ok(credentials)
            }
            // What we have may still serve: its issuer is in trouble, not the service.
            Err(error) => match &mut *known {
                Some(known) if known.credentials.expiry().is_none_or(|end| end > SystemTime::now()) => {
                    known.asked = asked;
                    tracing::debug!(%error, "credentials could not be renewed, the old ones are kept");
                    Ok(known.credentials.clone())
                }
                _ => Err(error),
            },
        }
    }

    async fn ask(&self) -> provider::Result {
        // Boxed: the SDK's loader is a future of many kilobytes.
        let sdk: SdkConfig = Box::pin(self.settings.load()).await;
        match self.settings.credentials(&sdk).await {
            Some(provider) => provider.provide_credentials().await,
            None => Err(CredentialsError::not_loaded("no credentials in the chain")),
        }
    }
}

/// Whether these credentials are to be replaced.
fn is_due(known: &Known, refused: bool, now: Instant, clock: SystemTime) -> bool {
    let age = now.saturating_duration_since(known.asked);
    let ends = match known.credentials.expiry() {
        Some(end) => end.duration_since(clock).unwrap_or_default() < EXPIRY_RESERVE,
        None => age >= AGE_MAX,
    };
    // An issuer with a short life for its credentials, or one in trouble, is not asked with every request either.
    (ends || refused) && age >= ASK_EVERY
}

impl ProvideCredentials for Renewing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn credentials_are_replaced_before_their_end_when_old_and_when_refused() {
        let (asked, clock) = (Instant::now(), SystemTime::now());
        let known = |expiry: Option<u64>| Known {
            credentials: Credentials::new("id", "secret", None, expiry.map(|s| clock + Duration::from_secs(s)), "test"),
            asked,
        };
        let after = |seconds| asked + Duration::from_secs(seconds);
        assert!(!is_due(&known(None), false, after(100), clock));
        assert!(is_due(&known(None), false, after(15 * 60), clock));
        assert!(!is_due(&known(Some(3600)), false, after(1000), clock));
        assert!(is_due(&known(Some(59)), false, after(10), clock));
        assert!(is_due(&known(None), true, after(2), clock));
        for refused in [false, true] {
            assert!(!is_due(&known(Some(0)), refused, after(1), clock), "the issuer is not stormed");
        }
    }
}
