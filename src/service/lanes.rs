//! Lanes, for operators.

use super::{Result, Service};
use crate::domain::lane::{Lane, LaneFilter};
use crate::domain::waiting::Waiting;

/// A lane, and why its next job waits.
pub type LaneAndWhy = (Lane, Option<Waiting>);

impl Service {
    /// The most urgent of these lanes, at most `limit`, each with why its next job waits.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn lanes(&self, filter: &LaneFilter, limit: i64) -> Result<Vec<LaneAndWhy>> {
        let lanes = self.store.lanes(filter, limit).await.map_err(|e| self.failed(e))?;
        self.explained(lanes).await
    }

    /// The lane with this id, with why its next job waits, and how many of its jobs have failed with each code.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn lane(&self, id: i64) -> Result<Option<(LaneAndWhy, Vec<(String, i64)>)>> {
        let Some(lane) = self.store.lane(id).await.map_err(|e| self.failed(e))? else { return Ok(None) };
        let errors = self.store.lane_errors(id).await.map_err(|e| self.failed(e))?;
        Ok(self.explained(vec![lane]).await?.pop().map(|lane| (lane, errors)))
    }

    async fn explained(&self, lanes: Vec<Lane>) -> Result<Vec<LaneAndWhy>> {
        let next: Vec<i64> = lanes.iter().filter_map(|lane| lane.next_job).collect();
        let mut reasons = self.waiting_reasons(&next).await?;
        let why = |lane: Lane| {
            let reason = lane.next_job.and_then(|job| reasons.remove(&job));
            (lane, reason)
        };
        Ok(lanes.into_iter().map(why).collect())
    }
}
