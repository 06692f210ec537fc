//! The integration tests: the real server, real PostgreSQL, real Python.

mod http;
mod reads;
