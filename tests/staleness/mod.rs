//! Leaders, and what has taken too long.

mod leader;
