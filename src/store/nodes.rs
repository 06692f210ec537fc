//! Nodes, their leases, and the tidying up that any of them does.

use std::time::Duration;

use uuid::Uuid;

use super::crash::crash_point;
use super::leader::assert_leader;
use super::transaction::in_transaction;
use super::{Result, Store};
use crate::domain::job::Claim;
use crate::domain::leader::Term;

/// A job that went back to the queue because its node is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescued {
    /// The node that is gone.
    pub node: Uuid,
    /// The claim that was lost.
    pub claim: Claim,
    /// The job's lane.
    pub lane_id: i64,
    /// The job's run.
    pub run_id: Uuid,
    /// The run's batch.
    pub batch_id: Uuid,
    /// The `X-Request-ID` of the request that made the run.
    pub request_id: String,
}

/// A process that registers as a node.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Made by the process.
    pub id: Uuid,
    /// For people: host and process id.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// Whether it executes jobs.
    pub executes: bool,
    /// The models' providers that its workers can call.
    pub providers: Vec<String>,
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Store {
    /// Registers a node with its first lease.
    ///
    /// # Errors
    /// The database's.
    pub async fn register_node(&self, node: &NewNode, lease: Duration) -> Result<()> {
        self.insert_node(node, lease, false).await
    }

    /// Registers a node that claims nothing: an admin said so before its process lost its lease.
    ///
    /// # Errors
    /// The database's.
    pub async fn register_drained_node(&self, node: &NewNode, lease: Duration) -> Result<()> {
        self.insert_node(node, lease, true).await
    }

    async fn insert_node(&self, node: &NewNode, lease: Duration, is_draining: bool) -> Result<()> {
        sqlx::query!(
            "with joined as (
                insert into node (id, name, version, executes, lease_until, is_draining, providers)
                values ($1, $2, $3, $4, clock_timestamp() + $5 * interval '1 millisecond', $6, $7)
                returning *
             )
             select record_act('node.joined', 'node', j.id::text, null, null,
                               jsonb_build_object('name', j.name, 'version', j.version, 'executes', j.executes,
                                                  'isDraining', j.is_draining))
               from joined j",
            node.id,
            node.name,
            node.version,
            node.executes,
            millis(lease) as f64,
            is_draining,
            &node.providers
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(())
    }

    /// Lets a node that ends claim nothing more.
    ///
    /// # Errors
    /// The database's.
    pub async fn stop_node(&self, node: Uuid) -> Result<()> {
        in_transaction(self, move |c| {
            Box::pin(async move {
                // Waits for a claim that is still on its way: whatever is claimed was claimed before the drain began.
                sqlx::query!("select id from node where id = $1 for update", node)
                    .fetch_optional(&mut *c)
                    .await?;
                sqlx::query!(
                    "with stopping as (
                        update node set is_draining = true, is_stopping = true
                         where id = $1 and not is_stopping returning id
                     )
                     select record_act('node.stopping', 'node', s.id::text) from stopping s",
                    node
                )
                .fetch_optional(c)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// Removes a node that holds no claims any more. One that still does is left for [`Store::rescue_jobs`].
    ///
    /// # Errors
    /// The database's.
    pub async fn remove_node(&self, node: Uuid) -> Result<()> {
        in_transaction(self, move |c| {
            Box::pin(async move {
                // Waits for a claim that is still on its way; the next statement then sees what it took.
                sqlx::query!("select id from node where id = $1 for update", node)
                    .fetch_optional(&mut *c)
                    .await?;
                sqlx::query!(
                    "with gone as (
                        delete from node
                         where id = $1
                           and not exists (select from active_job a where a.node_id = $1)
                        returning id
                     ), over as (
                        delete from claim c using gone g where c.node_id = g.id
                     )
                     select record_act('node.left', 'node', g.id::text) from gone g",
                    node
                )
                .fetch_optional(c)
                .await?;
                Ok(())
            })
        })
        .await
    }

    /// Gives the jobs of dead nodes back to the queue.
    ///
    /// # Errors
    /// The database's.
    pub async fn rescue_jobs(&self, lease: Duration) -> Result<Vec<Rescued>> {
        // Mostly everybody lives: then one statement says so, and no transaction is opened.
        let may_be_lost = sqlx::query_scalar!(
            r#"select not exists (select from lease_watch)
                   or exists (select from node n where n.lease_until < clock_timestamp())
                   or exists (select from claim c where not exists (select from node n where n.id = c.node_id))
                   as "may_be_lost!""#
        )
        .fetch_one(&self.pool)
        .await?;
        if !may_be_lost {
            return Ok(Vec::new());
        }
        in_transaction(self, move |c| {
            Box::pin(async move {
                let rows = sqlx::query!(
                    r#"select node_id as "node_id!", job_id as "job_id!", number as "number!", lane_id as "lane_id!",
                              run_id as "run_id!", batch_id as "batch_id!", request_id as "request_id!"
                         from rescue_jobs($1)"#,
                    millis(lease)
                )
                .fetch_all(c)
                .await?;
                if !rows.is_empty() {
                    crash_point("rescue.before");
                }
                Ok(rows
                    .into_iter()
                    .map(|r| Rescued {
                        node: r.node_id,
                        claim: Claim { job_id: r.job_id, number: r.number },
                        lane_id: r.lane_id,
                        run_id: r.run_id,
                        batch_id: r.batch_id,
                        request_id: r.request_id,
                    })
                    .collect())
            })
        })
        .await
        .inspect(|rescued: &Vec<Rescued>| {
            if !rescued.is_empty() {
                crash_point("rescue.after");
            }
        })
    }

    /// Rewrites up to `batch` waiting rows of closed lanes as cancelled, which they are already for every reader.
    /// Returns how many.
    ///
    /// # Errors
    /// [`super::Error::Deposed`] when another node leads; the database's.
    pub async fn settle_closed_lanes(&self, term: Term, batch: i64) -> Result<u64> {
        in_transaction(self, move |c| {
            Box::pin(async move {
                assert_leader(c, term).await?;
                let lane = sqlx::query_scalar!(
                    // Whoever is about to open a lane again takes such rows back; if it dies of that, they come here.
                    "select id from lane
                      where not is_settled and not is_open
                        and (reopening_at is null or reopening_at < clock_timestamp() - interval '1 minute')
                      order by id limit 1 for update skip locked"
                )
                .fetch_optional(&mut *c)
                .await?;
                let Some(lane) = lane else { return Ok(0) };
                let rewritten = sqlx::query_scalar!(r#"select settle_lane($1, $2) as "n!""#, lane, batch)
                    .fetch_one(&mut *c)
                    .await?;
                crash_point("settle.before");
                if rewritten < batch {
                    sqlx::query!("update lane set is_settled = true where id = $1", lane).execute(c).await?;
                }
                Ok(rewritten.max(1).unsigned_abs())
            })
        })
        .await
    }
}
