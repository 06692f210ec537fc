//! The words of Runlane as types: states and their transitions, errors, sampling, backoff, definitions.
//!
//! The bottom of the program: imports neither sqlx nor async-graphql nor axum, does no I/O, and takes time and
//! randomness as arguments.

pub mod backoff;
pub mod clock;
pub mod crash;
pub mod dead_letter;
pub mod definition;
pub mod error_code;
pub mod estimate;
pub mod export;
pub mod filter;
pub mod forecast;
pub mod guard;
pub mod history;
pub mod ids;
pub mod job;
pub mod json;
pub mod lane;
pub mod leader;
pub mod limits;
pub mod model_id;
pub mod node;
pub mod page;
pub mod params;
pub mod prices;
pub mod provider;
pub mod queue;
pub mod rate_limit;
pub mod request;
pub mod requester;
pub mod run;
pub mod sampling;
pub mod spend;
pub mod staleness;
pub mod start_run;
pub mod text_enum;
pub mod validation;
pub mod verify;
pub mod view;
pub mod waiting;
pub mod work;

pub use error_code::{Consequence, ErrorCode};
pub use job::{AttemptOutcome, JobKind, JobState, TaskStatus};
pub use limits::Limits;
pub use model_id::ModelId;
pub use requester::{RequestId, Requester, Role};
pub use run::{CancelMode, RunAction, RunPriority, RunStatus};
pub use validation::{Checker, FieldError, ValidationErrors};
