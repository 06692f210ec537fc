//! Lanes that are held because their jobs crash, and their release.

use std::sync::Arc;

use uuid::Uuid;

use super::control::{RunHead, lock_gate, lock_run, wake};
use super::transaction::in_transaction;
use super::{Result, Store};

/// What came of releasing a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// It is not held now; `was_held`: until now it was.
    Lane {
        /// Whether anything changed.
        was_held: bool,
    },
    /// The run does not have this model.
    NoSuchModel,
}

impl Store {
    /// Lets the probes of one model of a run start again, and forgets the crashes that held them, if `allow` agrees.
    /// `None`: there is no such run. `Some(Err)`: refused, nothing changed.
    ///
    /// # Errors
    /// The database's.
    pub async fn release_lane<E: Send + 'static>(
        &self,
        id: Uuid,
        model: &str,
        allow: impl Fn(&RunHead) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Option<Result<Released, E>>> {
        let (allow, model) = (Arc::new(allow), model.to_owned());
        in_transaction(self, move |c| {
            let (allow, model) = (Arc::clone(&allow), model.clone());
            Box::pin(async move {
                lock_gate(c).await?;
                let lane = sqlx::query!(
                    r#"select id, held_at is not null as "is_held!" from lane
                        where run_id = $1 and kind = 'probe:scenario' and model = $2 for update"#,
                    id,
                    model
                )
                .fetch_optional(&mut *c)
                .await?;
                let Some(run) = lock_run(c, id).await? else { return Ok(None) };
                if let Err(refused) = allow(&run) {
                    return Ok(Some(Err(refused)));
                }
                let Some(lane) = lane else { return Ok(Some(Ok(Released::NoSuchModel))) };
                if lane.is_held {
                    sqlx::query!("delete from lane_crash where lane_id = $1", lane.id)
                        .execute(&mut *c)
                        .await?;
                    sqlx::query!(
                        "update lane
                            set held_at = null, hold_reason = null, hold_fingerprint = null,
                                version = version + 1, updated_at = clock_timestamp()
                          where id = $1",
                        lane.id
                    )
                    .execute(&mut *c)
                    .await?;
                    wake(c).await?;
                }
                Ok(Some(Ok(Released::Lane { was_held: lane.is_held })))
            })
        })
        .await
    }
}
