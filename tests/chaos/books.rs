//! What must hold of the books, asked of `runlane verify` and of the database itself.

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgPool;
use sqlx::types::Uuid;

use super::stage::Stage;
use super::verdict::Verdict;
use super::watch::Window;

/// The figures that the invariants of `runlane verify` are printed under.
const FIGURES: [(&str, &[&str]); 7] = [
    ("lost", &["I1", "I2"]),
    ("dup", &["I3"]),
    ("stale_writes", &["I6"]),
    ("progress_mismatch", &["I5"]),
    ("audit_gaps", &["I4"]),
    ("overlaps", &["I7"]),
    ("claims_while_paused", &["I9"]),
];

/// Asks `runlane verify`, and puts what it finds into the verdict. The runs are those whose start was acknowledged.
pub async fn verify(stage: &Stage, runs: &[String], verdict: &mut Verdict) -> anyhow::Result<()> {
    let said = stage.verify(runs).await?;
    let mut found: Vec<(String, String)> = Vec::new();
    let mut checked = None;
    for line in said.lines() {
        let object: Value = serde_json::from_str(line).with_context(|| format!("it says {line:?}"))?;
        let text = |name: &str| object[name].as_str().unwrap_or_default();
        match object["violations"].as_u64() {
            Some(n) => checked = Some((n, object["checks"].as_u64().unwrap_or_default())),
            None => found.push((
                text("invariant").to_owned(),
                format!("{}: {}: {}", text("check"), text("subject"), text("detail")),
            )),
        }
    }
    let (violations, checks) = checked.context("it has not said how many there are")?;
    ensure!(
        checks > 0 && violations == found.len() as u64,
        "it checked {checks} rules and found {violations}"
    );
    for (figure, invariants) in FIGURES {
        let these = found.extract_if(.., |(invariant, _)| invariants.contains(&&**invariant));
        let these: Vec<String> = these.map(|(_, text)| text).collect();
        verdict.none(figure, &these);
    }
    // What belongs to no invariant is wrong all the same.
    for (invariant, text) in found {
        verdict.must(false, format!("{invariant} {text}"));
    }
    Ok(())
}

/// I5 while everything moves: one statement sees one instant.
pub async fn counters_that_are_no_sums(db: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let sql = "select format('lane %s counts %s/%s/%s/%s/%s of %s, its jobs are %s/%s/%s/%s/%s', l.id,
                       l.pending, l.active, l.completed, l.failed, l.cancelled, l.total,
                       s.pending, s.active, s.completed, s.failed, s.cancelled)
           from lane l
          cross join lateral (
             select count(*) filter (where j.state = 'pending' and l.is_open) as pending,
                    count(*) filter (where j.state = 'active') as active,
                    count(*) filter (where j.state = 'completed') as completed,
                    count(*) filter (where j.state = 'failed') as failed,
                    count(*) filter (where j.state = 'cancelled' or j.state = 'pending' and not l.is_open) as cancelled
               from current_job j where j.lane_id = l.id
          ) as s
          where (l.pending, l.active, l.completed, l.failed, l.cancelled)
                <> (s.pending, s.active, s.completed, s.failed, s.cancelled)
            and l.is_live";
    sqlx::query_scalar(sql).fetch_all(db).await
}

/// How many probes there are, and how often they were claimed.
pub async fn executions(db: &PgPool) -> anyhow::Result<(i64, i64)> {
    let sql = "select count(*), coalesce(sum(j.claims), 0)::bigint
                 from current_job j join lane l on l.id = j.lane_id where l.kind = 'probe:scenario'";
    Ok(sqlx::query_as(sql).fetch_one(db).await?)
}

/// A node that was killed, and when.
#[derive(Debug, Clone, Copy)]
pub struct Killed {
    /// Its registration.
    pub node: Uuid,
    /// By the database's clock.
    pub at: DateTime<Utc>,
}

/// Milliseconds from each kill to the next claim of each job that was lost by it.
pub async fn reclaims_ms(db: &PgPool, killed: &[Killed]) -> anyhow::Result<Vec<f64>> {
    let nodes: Vec<Uuid> = killed.iter().map(|k| k.node).collect();
    let times: Vec<DateTime<Utc>> = killed.iter().map(|k| k.at).collect();
    let sql = "select extract(epoch from next.started_at - k.at)::float8 * 1000
                 from unnest($1::uuid[], $2::timestamptz[]) as k (node, at)
                 join attempt lost on lost.node_id = k.node and lost.outcome = 'lost' and lost.error_code = 'node_lost'
                 join attempt next on next.job_id = lost.job_id and next.number = lost.number + 1";
    Ok(sqlx::query_scalar(sql).bind(nodes).bind(times).fetch_all(db).await?)
}

/// Whether each of the `extra` executions of probes is of one that a node lost with a fault, and the faults hit no more than they
/// can: the jobs in their slots, and as many that had just ended. A slot is free when its job has ended, which may be before the
/// end is on record.
pub async fn explain(
    db: &PgPool,
    extra: i64,
    killed: &[Killed],
    concurrency: usize,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let nodes: Vec<Uuid> = killed.iter().map(|k| k.node).collect();
    let sql = "select count(*) from attempt a
                 join current_job j on j.id = a.job_id
                 join lane l on l.id = j.lane_id and l.kind = 'probe:scenario'
                where a.node_id = any ($1) and a.outcome = 'lost' and a.error_code = 'node_lost'";
    let lost: i64 = sqlx::query_scalar(sql).bind(nodes).fetch_one(db).await?;
    let most = i64::try_from(2 * killed.len() * concurrency)?;
    verdict.timely(lost <= most, format!("{lost} probes were lost; {} faults explain {most}", killed.len()));
    verdict.timely(extra <= lost, format!("{extra} executions too many; {lost} were lost with their nodes"));
    Ok(())
}

/// I9: claims within the times in which the queue was surely paused.
pub async fn claims_while_paused(db: &PgPool, pauses: &[Window]) -> anyhow::Result<Vec<String>> {
    let (from, to): (Vec<DateTime<Utc>>, Vec<DateTime<Utc>>) = pauses.iter().copied().unzip();
    let sql = "select format('job %s was claimed at %s, paused from %s to %s', a.job_id, a.started_at, p.since, p.until)
                 from unnest($1::timestamptz[], $2::timestamptz[]) as p (since, until)
                 join attempt a on a.started_at > p.since and a.started_at < p.until";
    Ok(sqlx::query_scalar(sql).bind(from).bind(to).fetch_all(db).await?)
}

/// I1: runs whose start was acknowledged and that are not there under the key they were started with.
pub async fn lost_runs(db: &PgPool, acknowledged: &[(String, String)]) -> anyhow::Result<Vec<String>> {
    let (keys, ids): (Vec<String>, Vec<String>) = acknowledged.iter().cloned().unzip();
    let sql = "select format('run %s (%s) was acknowledged, but is %s', a.id, a.key, coalesce(r.id::text, 'not there'))
                 from unnest($1::text[], $2::text[]) as a (key, id)
                 left join run r on r.idempotency_key = a.key
                where r.id is distinct from a.id::uuid";
    Ok(sqlx::query_scalar(sql).bind(keys).bind(ids).fetch_all(db).await?)
}
