//! What may happen, and what then changes: between the transports and the store. No SQL, no GraphQL.
//!
//! Every function takes the person who asks. Queries answer none for what that person may not see, mutations
//! NOT_FOUND; whoever may change nothing at all is FORBIDDEN before anything is looked up.

mod access;
mod control;
mod dead_letters;
mod definitions;
mod deletion;
mod error;
mod estimate;
mod export;
mod history;
mod jobs;
mod lanes;
mod money;
mod nodes;
mod queue;
mod rate_limits;
mod runs;
mod spend;
mod staleness;
mod start;
mod together;
mod waiting;

use std::borrow::Borrow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use uuid::Uuid;

pub use deletion::Deletion;
pub use error::{Entity, Error, Result};
pub use estimate::{ModelEstimate, RunEstimate};
pub use export::ExportRows;
pub use lanes::LaneAndWhy;
pub use start::Started;

use self::together::Together;
use crate::config::Config;
use crate::domain::view::Run;
use crate::domain::{Limits, sampling};
use crate::store::{self, Store};

/// How long a read may wait for others to be answered, so as to go with the next.
const TOGETHER_WAIT_MAX: Duration = Duration::from_millis(10);

/// Everything that people can ask for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    store: Store,
    config: Arc<Config>,
    limits: Limits,
    /// Runs that many people look at at once.
    runs_together: Together<Uuid, Arc<Run>>,
    /// Where seeds come from that a request leaves out.
    rng: Arc<Mutex<ChaCha20Rng>>,
}

impl Service {
    /// The services over a store. `rng` draws the seeds of samples.
    #[must_use]
    pub fn new(store: Store, config: Arc<Config>, rng: ChaCha20Rng) -> Self {
        let limits = config.numbers.limits();
        let runs_together = Together::new(TOGETHER_WAIT_MAX, {
            let store = store.clone();
            move |ids: Vec<Uuid>| {
                let store = store.clone();
                async move { Ok(store.runs_by_id(&ids).await?.into_iter().map(|r| (r.id, Arc::new(r))).collect()) }
            }
        });
        Self { store, config, limits, runs_together, rng: Arc::new(Mutex::new(rng)) }
    }

    /// How large what people send may be.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    fn draw_seed(&self) -> u32 {
        // A generator that another thread left in the middle is still one.
        sampling::draw_seed(&mut *self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a failure of the database means for the caller.
    fn failed(&self, error: impl Borrow<store::Error>) -> Error {
        let error = error.borrow();
        match error.public() {
            Some(why) => self.unavailable(why.to_owned(), error),
            None => Error::internal(error),
        }
    }

    fn unavailable(&self, why: String, error: &store::Error) -> Error {
        let retry_after = Duration::from_millis(self.config.numbers.http_retry_after_ms);
        Error::Unavailable { why, retry_after, internal: error.to_string() }
    }

    /// Reads what was just changed. The change stands, so a read that finds the database away is tried again first.
    async fn read_back<T, F>(&self, read: impl Fn() -> F) -> store::Result<T>
    where
        F: Future<Output = store::Result<T>>,
    {
        let numbers = &self.config.numbers;
        let mut retries = 0;
        loop {
            match read().await {
                Err(error) if error.is_transient() && retries < numbers.database_retries => {
                    retries += 1;
                    tracing::debug!(%error, retries, "cannot read what was changed; trying again");
                    tokio::time::sleep(Duration::from_millis(numbers.database_retry_delay_ms)).await;
                }
                answer => return answer,
            }
        }
    }
}

/// Runs what takes the processor for long where it holds up no other request.
async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work)).await.map_err(|e| Error::internal(&e))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_computes_for_long_does_not_hold_up_the_thread_that_asked() {
        let (sender, receiver) = mpsc::channel();
        // It waits for what this runtime's only thread does meanwhile.
        let computed = compute(move || receiver.recv_timeout(Duration::from_secs(60)));
        let (computed, sent) = tokio::join!(computed, async { sender.send(7) });
        sent.unwrap();
        assert_eq!(computed.unwrap(), Ok(7));
    }
}
