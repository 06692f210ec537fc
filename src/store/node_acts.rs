//! What operators see of nodes and do to them.

use std::sync::Arc;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::audit::{job_facts, record_job_change};
use super::transaction::in_transaction;
use super::{Result, Store};
use crate::domain::node::{Node, NodeSlots, NodeState};
use crate::domain::{JobKind, JobState};

/// What may be done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeChange {
    /// Claim nothing more.
    Drain,
    /// Claim again.
    Undrain,
    /// Give every claim back to the queue now.
    Release,
}

/// What was wanted of one claim, and what the job's row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobRelease {
    /// The claim is gone from its node, and the job waits again.
    Released,
    /// There is no such claim to take; nothing changed.
    NotHeld {
        /// Where the job stands.
        state: JobState,
        /// The number of its latest claim.
        number: i32,
    },
}

impl Store {
    /// The registered nodes, oldest first; only this one, if an id is given.
    ///
    /// # Errors
    /// The database's.
    pub async fn nodes(&self, id: Option<Uuid>) -> Result<Vec<Node>> {
        let rows = sqlx::query!(
            r#"select n.id, n.name, n.version, n.started_at, n.executes, n.slots, n.active, n.lease_until,
                      n.failed_renewals, n.late_results, n.is_draining, n.is_stopping,
                      n.lease_until < clock_timestamp() as "is_run_out!",
                      (extract(epoch from clock_timestamp() - n.renewed_at) * 1000)::bigint as "heartbeat_age_ms!",
                      coalesce(c.claims, 0) as "claims!"
                 from node n
                 left join (
                    select a.node_id, count(*) as claims from active_job a group by a.node_id
                 ) as c on c.node_id = n.id
                where $1::uuid is null or n.id = $1
                order by n.started_at, n.id"#,
            id
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| Node {
                state: NodeState::of(r.is_run_out, r.is_stopping, r.is_draining),
                slots: slots(&r.slots, &r.active),
                id: r.id,
                name: r.name,
                version: r.version,
                started_at: r.started_at,
                executes: r.executes,
                claims: r.claims,
                heartbeat_age_ms: r.heartbeat_age_ms,
                lease_until: r.lease_until,
                failed_renewals: r.failed_renewals,
                late_results: r.late_results,
                is_draining: r.is_draining,
            })
            .collect())
    }

    /// Changes a node if `allow` agrees with its state. `None`: there is no such node. `Some(Err)`: refused, nothing
    /// changed. When it has returned, no claim commits that the change forbids.
    ///
    /// # Errors
    /// The database's.
    pub async fn control_node<E: Send + 'static>(
        &self,
        id: Uuid,
        change: NodeChange,
        allow: impl Fn(NodeState) -> Result<(), E> + Send + Sync + 'static,
    ) -> Result<Option<Result<(), E>>> {
        let allow = Arc::new(allow);
        in_transaction(self, move |c| {
            let allow = Arc::clone(&allow);
            Box::pin(async move {
                // Waits for claims that are under way, and has the next ones see what changes here.
                let node = sqlx::query!(
                    r#"select is_draining, is_stopping, lease_until < clock_timestamp() as "is_run_out!"
                         from node where id = $1 for update"#,
                    id
                )
                .fetch_optional(&mut *c)
                .await?;
                let Some(node) = node else { return Ok(None) };
                if let Err(refused) =
                    allow(NodeState::of(node.is_run_out, node.is_stopping, node.is_draining))
                {
                    return Ok(Some(Err(refused)));
                }
                match change {
                    NodeChange::Drain => set_draining(c, id, true, "drainNode").await?,
                    NodeChange::Undrain => set_draining(c, id, false, "undrainNode").await?,
                    NodeChange::Release => release_all(c, id).await?,
                }
                sqlx::query!("select pg_notify('runlane_node', '')").fetch_one(c).await?;
                Ok(Some(Ok(())))
            })
        })
        .await
    }

    /// Takes a job's claim away from its node: the one of this number, or whichever it is. `None`: there is no such job.
    ///
    /// # Errors
    /// The database's.
    pub async fn release_job(&self, id: i64, number: Option<i32>) -> Result<Option<JobRelease>> {
        in_transaction(self, move |c| {
            Box::pin(async move {
                // Again when the claim ends between the look and the release.
                loop {
                    let job = sqlx::query!(
                        r#"select case when j.state = 'pending' and not l.is_open then 'cancelled'
                                       else j.state::text end as "state!", j.claims as "claims!", j.node_id, l.run_id
                             from current_job j join lane l on l.id = j.lane_id
                            where j.id = $1"#,
                        id
                    )
                    .fetch_optional(&mut *c)
                    .await?;
                    let Some(job) = job else { return Ok(None) };
                    let Some(node) = job.node_id.filter(|_| number.is_none_or(|n| n == job.claims)) else {
                        let state = job.state.parse()?;
                        return Ok(Some(JobRelease::NotHeld { state, number: job.claims }));
                    };
                    // Waits for ends that are under way, which take their locks in another order.
                    sqlx::query!("select from node where id = $1 for update", node).execute(&mut *c).await?;
                    let before = job_facts(c, id).await?;
                    if release(c, node, &[id], &[job.claims]).await? == 1 {
                        record_job_change(c, "releaseJob", id, job.run_id, before).await?;
                        sqlx::query!("select pg_notify('runlane_cancel', '')").fetch_one(c).await?;
                        return Ok(Some(JobRelease::Released));
                    }
                }
            })
        })
        .await
    }
}

fn slots(slots: &Value, active: &Value) -> Vec<NodeSlots> {
    let count = |counts: &Value, kind: &str| counts.get(kind).and_then(Value::as_i64);
    let entry = |&kind: &JobKind| {
        let slots = count(slots, kind.as_str())?;
        Some(NodeSlots { kind, slots, active: count(active, kind.as_str()).unwrap_or_default() })
    };
    JobKind::ALL.iter().filter_map(entry).collect()
}

async fn set_draining(c: &mut PgConnection, id: Uuid, is_draining: bool, action: &str) -> Result<()> {
    sqlx::query!(
        "with changed as (
            update node set is_draining = $2 where id = $1 and is_draining <> $2 returning id
         )
         select record_act($3, 'node', c.id::text, null, jsonb_build_object('isDraining', not $2),
                           jsonb_build_object('isDraining', $2))
           from changed c",
        id,
        is_draining,
        action
    )
    .fetch_optional(c)
    .await?;
    Ok(())
}

async fn release_all(c: &mut PgConnection, node: Uuid) -> Result<()> {
    let claims = sqlx::query!(
        r#"select a.id as "id!", a.claims as "claims!" from active_job a where a.node_id = $1"#,
        node
    )
    .fetch_all(&mut *c)
    .await?;
    let (ids, numbers): (Vec<i64>, Vec<i32>) = claims.into_iter().map(|r| (r.id, r.claims)).unzip();
    let released = release(c, node, &ids, &numbers).await?;
    if released > 0 {
        sqlx::query!(
            "select record_act('releaseNode', 'node', $1::uuid::text, null, jsonb_build_object('claims', $2::bigint),
                               jsonb_build_object('claims', 0))",
            node,
            released
        )
        .fetch_one(&mut *c)
        .await?;
        sqlx::query!("select pg_notify('runlane_cancel', '')").fetch_one(c).await?;
    }
    Ok(())
}

/// Gives claims of a node back; returns how many of them it still held.
async fn release(c: &mut PgConnection, node: Uuid, ids: &[i64], numbers: &[i32]) -> Result<i64> {
    let released =
        sqlx::query_scalar!(r#"select count(*) as "n!" from release_claims($1, $2, $3)"#, node, ids, numbers)
            .fetch_one(c)
            .await?;
    Ok(released)
}
