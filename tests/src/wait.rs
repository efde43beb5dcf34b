//! Waiting for a condition, with a deadline and a name; never for a length of time.

use std::future::Future;
use std::time::{Duration, Instant};

/// The longest that anything is waited for, unless a test says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A machine that stood still for a while has not tried: a wait is over after so many tries at least.
const LEAST_TRIES: usize = 100;

/// Waits until `condition` gives a value.
///
/// # Panics
/// After [`DEADLINE`], naming `what` was waited for.
pub async fn until<T, F, C>(what: &str, condition: C) -> T
where
    C: FnMut() -> F,
    F: Future<Output = Option<T>>,
{
    until_for(DEADLINE, what, condition).await
}

/// Waits until `condition` gives a value, up to another deadline.
///
/// # Panics
/// After it, naming `what` was waited for.
pub async fn until_for<T, F, C>(deadline: Duration, what: &str, mut condition: C) -> T
where
    C: FnMut() -> F,
    F: Future<Output = Option<T>>,
{
    let started = Instant::now();
    let (mut tries, mut longest) = (0, Duration::ZERO);
    loop {
        let tried = Instant::now();
        if let Some(value) = condition().await {
            return value;
        }
        tries += 1;
        longest = longest.max(tried.elapsed());
        assert!(
            started.elapsed() < deadline || tries < LEAST_TRIES,
            "waited {:?} in vain, {tries} tries, the longest {longest:?}: {what}",
            started.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a future.
///
/// # Panics
/// After [`DEADLINE`], naming `what` was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain: {what}"),
    }
}
