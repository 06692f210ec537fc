//! Connections between two statements.

use std::time::{Duration, Instant};

/// What was idle for longer goes back to the pool, which asks whether anybody is still there.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// So does what has not been there for so long: the pool closes what has become old.
const AWAY_MAX: Duration = Duration::from_secs(600);

/// Connections that nobody uses just now, and that the pool takes for used.
#[derive(Debug)]
pub(super) struct Shelf<C> {
    /// The longest idle first.
    idle: Vec<Idle<C>>,
    /// Callers that ask the pool: what comes back meanwhile goes there, where they wait for it.
    asking: usize,
    /// The pool ends, and waits for all of its connections.
    is_closed: bool,
}

/// A connection with its times.
#[derive(Debug)]
pub(super) struct Idle<C> {
    pub(super) connection: C,
    /// When it came from the pool.
    pub(super) fetched: Instant,
    /// When it was last used.
    pub(super) used: Instant,
}

/// What a caller finds.
pub(super) struct Taken<C> {
    /// None: the caller asks the pool, and tells when it has an answer ([`Shelf::answered`]).
    pub(super) found: Option<Idle<C>>,
    /// To go back to the pool.
    pub(super) stale: Vec<C>,
}

impl<C> Default for Shelf<C> {
    fn default() -> Self {
        Self { idle: Vec::new(), asking: 0, is_closed: false }
    }
}

impl<C> Shelf<C> {
    /// The connection that was used last.
    pub(super) fn take(&mut self, now: Instant) -> Taken<C> {
        let stale = self.idle.partition_point(|i| now - i.used >= IDLE_MAX);
        let stale = self.idle.drain(..stale).map(|i| i.connection).collect();
        let found = self.idle.pop();
        if found.is_none() {
            self.asking += 1;
        }
        Taken { found, stale }
    }

    /// Keeps a connection, unless it is to go back to the pool.
    pub(super) fn put(&mut self, idle: Idle<C>) -> Option<C> {
        if self.is_closed || self.asking > 0 || idle.used - idle.fetched >= AWAY_MAX {
            return Some(idle.connection);
        }
        self.idle.push(idle);
        None
    }

    /// A caller that asked the pool has its answer.
    pub(super) fn answered(&mut self) {
        self.asking -= 1;
    }

    /// All that are idle, to go back to the pool.
    pub(super) fn clear(&mut self) -> Vec<C> {
        self.idle.drain(..).map(|i| i.connection).collect()
    }

    /// The same, and nothing is kept from now on.
    pub(super) fn close(&mut self) -> Vec<C> {
        self.is_closed = true;
        self.clear()
    }

    /// How many are idle.
    pub(super) fn len(&self) -> usize {
        self.idle.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(connection: &'static str, fetched: Instant, used: Instant) -> Idle<&'static str> {
        Idle { connection, fetched, used }
    }

    fn found(taken: Taken<&'static str>) -> Option<&'static str> {
        taken.found.map(|i| i.connection)
    }

    #[test]
    fn the_last_to_come_back_is_the_first_to_go_out() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        for connection in ["a", "b"] {
            assert_eq!(shelf.put(idle(connection, now, now)), None);
        }
        assert_eq!((shelf.len(), found(shelf.take(now)), found(shelf.take(now))), (2, Some("b"), Some("a")));
    }

    #[test]
    fn what_was_idle_for_long_goes_back_to_the_pool() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        shelf.put(idle("old", now, now));
        shelf.put(idle("new", now, now + Duration::from_secs(1)));
        let taken = shelf.take(now + IDLE_MAX);
        assert_eq!(taken.stale, ["old"]);
        assert_eq!(found(taken), Some("new"));
    }

    #[test]
    fn what_was_away_from_the_pool_for_long_goes_back() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        assert_eq!(shelf.put(idle("a", now, now + AWAY_MAX - Duration::from_millis(1))), None);
        assert_eq!(shelf.put(idle("b", now, now + AWAY_MAX)), Some("b"));
    }

    #[test]
    fn what_comes_back_goes_to_those_who_ask_the_pool() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        assert_eq!(found(shelf.take(now)), None);
        assert_eq!(shelf.put(idle("a", now, now)), Some("a"));
        shelf.answered();
        assert_eq!(shelf.put(idle("a", now, now)), None);
    }

    #[test]
    fn a_closed_shelf_keeps_nothing() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        shelf.put(idle("a", now, now));
        assert_eq!(shelf.close(), ["a"]);
        assert_eq!(shelf.put(idle("b", now, now)), Some("b"));
    }
}
