//! What the fake does wrong on purpose. Rules are tried in order for each request; the first that fires decides.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The services of the fake; also the names in the credential scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    Logs,
    Firehose,
    S3,
}

impl Service {
    /// The name in the credential scope.
    pub fn scope(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Firehose => "firehose",
            Self::S3 => "s3",
        }
    }
}

/// A misbehaviour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// `ThrottlingException`, `ServiceUnavailableException`, `SlowDown`: the service's own word for "slower".
    Throttle,
    /// 500 `InternalFailure` / `InternalError`, nothing done.
    ServerError,
    /// 503 with a body that is no document of the service (a proxy's page), nothing done.
    BadGateway,
    /// The connection is cut before the request is read.
    ResetBefore,
    /// The request is carried out, then the connection is cut without an answer.
    ResetAfter,
    /// Never answers; nothing done.
    Hang,
    /// The request is carried out, and never answered.
    HangAfter,
    /// Answers late.
    Delay(Duration),
    /// `ExpiredTokenException` / `ExpiredToken`.
    ExpiredToken,
    /// `AccessDeniedException` / `AccessDenied`.
    AccessDenied,
    /// Firehose: each entry fails with this probability in percent.
    PartialFailure(f64),
    /// S3: CompleteMultipartUpload answers 200 with an `InternalError` document in its body, nothing done.
    ErrorInBody,
}

/// When a fault happens.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Only this service.
    pub service: Option<Service>,
    /// Only this operation, e.g. `PutLogEvents`.
    pub operation: Option<&'static str>,
    /// Probability in percent.
    pub percent: f64,
    /// How often at most.
    pub times: Option<u64>,
    /// What happens.
    pub fault: Fault,
}

impl Rule {
    /// Always, everywhere.
    pub fn new(fault: Fault) -> Self {
        Self { service: None, operation: None, percent: 100.0, times: None, fault }
    }

    /// Only on this service.
    pub fn on(mut self, service: Service) -> Self {
        self.service = Some(service);
        self
    }

    /// Only on this operation.
    pub fn operation(mut self, operation: &'static str) -> Self {
        self.operation = Some(operation);
        self
    }

    /// With this probability.
    pub fn percent(mut self, percent: f64) -> Self {
        self.percent = percent;
        self
    }

    /// At most so often.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }
}

/// The rules in force and the dice.
pub struct Faults {
    state: Mutex<(Vec<Rule>, fastrand::Rng)>,
}

impl Faults {
    /// No rules; dice from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: Mutex::new((Vec::new(), fastrand::Rng::with_seed(seed))) }
    }

    /// Replaces the rules.
    pub fn set(&self, rules: Vec<Rule>) {
        self.lock().0 = rules;
    }

    /// The fault of this request, if any.
    pub fn decide(&self, service: Service, operation: &str) -> Option<Fault> {
        let mut state = self.lock();
        let (rules, dice) = &mut *state;
        for rule in rules {
            let applies = rule.service.is_none_or(|only| only == service)
                && rule.operation.is_none_or(|only| only == operation)
                && rule.times != Some(0);
            if applies && dice.f64() * 100.0 < rule.percent {
                rule.times = rule.times.map(|left| left - 1);
                return Some(rule.fault);
            }
        }
        None
    }

    /// True with this probability in percent.
    pub fn roll(&self, percent: f64) -> bool {
        self.lock().1.f64() * 100.0 < percent
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<Rule>, fastrand::Rng)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_fire_where_and_as_often_as_they_say() {
        let faults = Faults::new(1);
        faults.set(vec![
            Rule::new(Fault::Hang).on(Service::S3).operation("PutObject").times(2),
            Rule::new(Fault::Throttle).on(Service::Logs).percent(30.0),
        ]);
        assert_eq!(faults.decide(Service::S3, "UploadPart"), None);
        assert_eq!(faults.decide(Service::S3, "PutObject"), Some(Fault::Hang));
        assert_eq!(faults.decide(Service::S3, "PutObject"), Some(Fault::Hang));
        assert_eq!(faults.decide(Service::S3, "PutObject"), None);
        let throttled = (0..10_000).filter(|_| faults.decide(Service::Logs, "PutLogEvents").is_some()).count();
        assert!((2_700..3_300).contains(&throttled), "{throttled} of 10,000");
    }
}
