//! What may happen, and what then changes: between the transports and the store. No SQL, no GraphQL.

mod error;

pub use error::{Entity, Error, Result};
