//! Which failures are worth another try, and when.

use std::time::Duration;

use crate::error::{Error, Result};

/// Longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// How many times as many tries a request gets when the service asks to slow down: it says that the next may succeed,
/// and a prefix that S3 is spreading over more machines needs minutes.
const PATIENCE: u32 = 2;

/// Whether the credentials have ended, and could not be renewed.
pub(super) fn expired(error: &Error) -> bool {
    const EXPIRED: [&str; 4] = ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"];
    error.aws().is_some_and(|aws| EXPIRED.contains(&aws.code.as_str()))
}

/// Whether the service asks for fewer requests.
pub(super) fn slow_down(error: &Error) -> bool {
    let asks = ["SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests"];
    error.aws().is_some_and(|aws| asks.contains(&aws.code.as_str()) || matches!(aws.status, Some(429 | 503)))
}

/// Runs `call` until it succeeds, fails in a way that is not worth trying `again`, or `attempts` are used up.
pub(super) async fn retrying<T, F: Future<Output = Result<T>>>(
    attempts: u32,
    back_off: Duration,
    again: impl Fn(&Error) -> bool,
    mut call: impl FnMut() -> F,
) -> Result<T> {
    let mut attempt = 1;
    loop {
        let most = |e: &Error| if slow_down(e) { attempts.saturating_mul(PATIENCE) } else { attempts };
        match call().await {
            Err(e) if attempt < most(&e) && again(&e) => {
                tracing::debug!(attempt, error = %e, "trying again");
                tokio::time::sleep(wait(back_off, attempt, rand::random())).await;
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// The wait after try number `attempt`; `random` is in 0..1. At least half of the step, so that a burst spreads and
/// no try comes at once.
pub(super) fn wait(back_off: Duration, attempt: u32, random: f64) -> Duration {
    let step = back_off.saturating_mul(1 << (attempt - 1).min(16)).min(WAIT_MAX);
    step.mul_f64(0.5 + random / 2.0)
}
