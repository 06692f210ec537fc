//! Reads that are asked for at the same time, by one statement for all of them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::store::{Error, Result};

/// As many statements run before others are waited for. A second one, so that no read waits for a large one.
const STATEMENTS: usize = 2;
/// What one statement reads at most.
const BATCH_MAX: usize = 100;

/// Reads by key. What is asked for goes to the database at once; when [`STATEMENTS`] are under way it goes with the next,
/// together with all that is asked for meanwhile. So under load many reads cost one statement, and none begins before its
/// read was asked for: nobody is answered with what was there before.
///
/// Cheap to clone.
pub(super) struct Together<K, V>(Arc<Shared<K, V>>);

/// Reads what there is of these keys.
type Read<K, V> = Box<dyn Fn(Vec<K>) -> BoxFuture<'static, Result<HashMap<K, V>>> + Send + Sync>;
/// Where an answer goes.
type Asker<V> = oneshot::Sender<Result<Option<V>, Arc<Error>>>;

struct Shared<K, V> {
    read: Read<K, V>,
    wait_max: Duration,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    asked: Vec<(K, Asker<V>)>,
    /// Statements under way.
    running: usize,
}

impl<K, V> Clone for Together<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> fmt::Debug for Together<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Together").finish_non_exhaustive()
    }
}

impl<K, V> Together<K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Reads by this function. What has waited for so long for others to be read waits for nobody any more: their statements
    /// may hang with their connections.
    pub(super) fn new<F>(wait_max: Duration, read: impl Fn(Vec<K>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<HashMap<K, V>>> + Send + 'static,
    {
        let state = Mutex::new(State { asked: Vec::new(), running: 0 });
        Self(Arc::new(Shared { read: Box::new(move |keys| Box::pin(read(keys))), wait_max, state }))
    }

    /// What there is of this key.
    ///
    /// # Errors
    /// Those of the read, for all who are answered by it.
    pub(super) async fn get(&self, key: K) -> Result<Option<V>, Arc<Error>> {
        let (asker, mut answer) = oneshot::channel();
        self.0.lock().asked.push((key, asker));
        self.run_if(|state| state.running < STATEMENTS);
        let answer = match timeout(self.0.wait_max, &mut answer).await {
            Ok(answer) => answer,
            Err(_) => {
                self.run_if(|state| !state.asked.is_empty());
                answer.await
            }
        };
        answer.unwrap_or_else(|_| Err(Arc::new(Error::Aborted)))
    }

    /// One more turn, in the background: it goes on when whoever asked leaves.
    fn run_if(&self, is_due: impl FnOnce(&State<K, V>) -> bool) {
        let mut state = self.0.lock();
        if !is_due(&state) {
            return;
        }
        state.running += 1;
        // A runtime that ends drops what is spawned at once, and a turn that is dropped takes the lock.
        drop(state);
        tokio::spawn(Turn { shared: Arc::clone(&self.0), is_over: false }.run());
    }
}

impl<K, V> Shared<K, V> {
    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs statements, one after another, until nothing is asked for.
struct Turn<K, V> {
    shared: Arc<Shared<K, V>>,
    /// It has found nothing to do, and is not counted any more.
    is_over: bool,
}

impl<K, V> Turn<K, V>
where
    K: Eq + Hash + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    async fn run(mut self) {
        while let Some(askers) = self.next() {
            let keys: HashSet<K> = askers.iter().map(|(key, _)| key.clone()).collect();
            let found = (self.shared.read)(keys.into_iter().collect()).await.map_err(Arc::new);
            for (key, asker) in askers {
                let answer = found.as_ref().map(|found| found.get(&key).cloned()).map_err(Arc::clone);
                // Whoever asked may have left.
                drop(asker.send(answer));
            }
        }
    }

    /// What is asked for now; none ends the turn.
    fn next(&mut self) -> Option<Vec<(K, Asker<V>)>> {
        let mut state = self.shared.lock();
        if state.asked.is_empty() {
            state.running -= 1;
            self.is_over = true;
            return None;
        }
        let count = state.asked.len().min(BATCH_MAX);
        Some(state.asked.drain(..count).collect())
    }
}

impl<K, V> Drop for Turn<K, V> {
    fn drop(&mut self) {
        // The read has panicked, or the runtime ends.
        if !self.is_over {
            self.shared.lock().running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// A statement: the keys that it reads, and where its answer comes from.
    type Statement = (Vec<u32>, oneshot::Sender<Result<HashMap<u32, u32>>>);

    const LONG: Duration = Duration::from_secs(60);

    /// Reads that the test answers.
    fn staged(wait_max: Duration) -> (Together<u32, u32>, mpsc::UnboundedReceiver<Statement>) {
        let (statements, receiver) = mpsc::unbounded_channel();
        let together = Together::new(wait_max, move |mut keys: Vec<u32>| {
            let (answer, answered) = oneshot::channel();
            keys.sort_unstable();
            statements.send((keys, answer)).unwrap();
            async { answered.await.unwrap() }
        });
        (together, receiver)
    }

    /// Asks in the background; the question is there when this returns.
    fn ask(together: &Together<u32, u32>, key: u32) -> tokio::task::JoinHandle<Option<u32>> {
        let together = together.clone();
        tokio::spawn(async move { together.get(key).await.unwrap() })
    }

    fn doubled(keys: &[u32]) -> Result<HashMap<u32, u32>> {
        Ok(keys.iter().filter(|k| **k < 100).map(|k| (*k, 2 * k)).collect())
    }

    #[tokio::test]
    async fn what_is_asked_meanwhile_is_read_together_afterwards() {
        let (together, mut statements) = staged(LONG);
        let mut first = Vec::new();
        for key in [1, 2] {
            let asked = ask(&together, key);
            let statement = statements.recv().await.unwrap();
            assert_eq!(statement.0, [key]);
            first.push((asked, statement));
        }
        // One of them again: what is under way may have looked before.
        let later: Vec<_> = [4, 3, 400, 3, 1].into_iter().map(|key| ask(&together, key)).collect();
        tokio::task::yield_now().await;
        assert!(statements.try_recv().is_err(), "two are under way");
        for (asked, (keys, answer)) in first {
            answer.send(doubled(&keys)).unwrap();
            assert_eq!(asked.await.unwrap(), Some(2 * keys[0]));
        }
        let (keys, answer) = statements.recv().await.unwrap();
        assert_eq!(keys, [1, 3, 4, 400]);
        answer.send(doubled(&keys)).unwrap();
        let mut answers = Vec::new();
        for asked in later {
            answers.push(asked.await.unwrap());
        }
        assert_eq!(answers, [Some(8), Some(6), None, Some(6), Some(2)]);
        assert_eq!(together.0.lock().running, 0);
    }

    #[tokio::test]
    async fn what_hangs_holds_up_nobody_for_long() {
        let wait_max = Duration::from_millis(50);
        let (together, mut statements) = staged(wait_max);
        let mut hanging = Vec::new();
        for key in [1, 2] {
            let asked = ask(&together, key);
            hanging.push((asked, statements.recv().await.unwrap()));
        }
        let asked = ask(&together, 3);
        let begun = tokio::time::Instant::now();
        let (keys, answer) = timeout(LONG, statements.recv()).await.expect("a statement for it").unwrap();
        assert_eq!(keys, [3]);
        assert!(begun.elapsed() >= wait_max, "{:?}", begun.elapsed());
        answer.send(doubled(&keys)).unwrap();
        assert_eq!(asked.await.unwrap(), Some(6));
    }

    #[tokio::test]
    async fn all_hear_of_a_read_that_failed_or_was_given_up() {
        let failing: Together<u32, u32> = Together::new(LONG, |_| async { Err(Error::Deposed) });
        assert!(matches!(*failing.get(1).await.unwrap_err(), Error::Deposed));
        let panicking: Together<u32, u32> = Together::new(LONG, |_| async { panic!("on purpose") });
        for _ in 0..2 * STATEMENTS {
            assert!(matches!(*panicking.get(1).await.unwrap_err(), Error::Aborted));
        }
        assert_eq!(panicking.0.lock().running, 0);
    }
}
