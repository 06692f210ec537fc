//! Documents that were sent before.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use async_graphql::ServerError;
use async_graphql::parser::parse_query;
use async_graphql::parser::types::ExecutableDocument;
use lru::LruCache;

/// Longer ones are read each time: clients that ask the same again and again ask for less.
const KEPT_MAX_BYTES: usize = 4_096;

/// Reads documents, and keeps those that were used last.
pub(super) struct Documents(Mutex<LruCache<String, Arc<ExecutableDocument>>>);

impl Documents {
    /// Keeps so many, and at least one.
    pub(super) fn new(kept: usize) -> Self {
        Self(Mutex::new(LruCache::new(NonZeroUsize::new(kept).unwrap_or(NonZeroUsize::MIN))))
    }

    /// What this text says.
    ///
    /// # Errors
    /// It is no GraphQL document.
    pub(super) fn read(&self, text: &str) -> Result<Arc<ExecutableDocument>, ServerError> {
        if text.len() > KEPT_MAX_BYTES {
            return Ok(Arc::new(parse_query(text)?));
        }
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(text) {
            return Ok(Arc::clone(known));
        }
        let document = Arc::new(parse_query(text)?);
        lock().put(text.to_owned(), Arc::clone(&document));
        Ok(document)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(documents: &Documents) -> Vec<String> {
        documents.0.lock().unwrap().iter().map(|(text, _)| text.clone()).collect()
    }

    #[test]
    fn what_was_used_last_is_kept_and_read_once() {
        let documents = Documents::new(2);
        let first = documents.read("{ a }").unwrap();
        documents.read("{ b }").unwrap();
        assert!(Arc::ptr_eq(&first, &documents.read("{ a }").unwrap()));
        documents.read("{ c }").unwrap();
        assert_eq!(kept(&documents), ["{ c }", "{ a }"]);
    }

    #[test]
    fn what_cannot_be_read_or_is_long_is_not_kept() {
        let documents = Documents::new(1);
        let long = format!("{{ a }} # {}", " ".repeat(KEPT_MAX_BYTES));
        assert!(documents.read(&long).is_ok());
        assert!(documents.read("{ a").is_err());
        assert!(kept(&documents).is_empty());
    }
}
