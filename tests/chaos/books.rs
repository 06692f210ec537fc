//! What must hold of the books when everything is at rest, asked of the database itself.

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use sqlx::types::Uuid;

use super::verdict::Verdict;
use super::watch::Window;

/// Violations by the figure under which they are printed. Every statement returns one line of text a violation.
const RULES: [(&str, &str); 7] = [
    // I2: nothing is left over, and whoever is not finished is not forgotten either.
    (
        "lost",
        "select format('job %s is still %s', j.id, j.state)
           from job j join lane l on l.id = j.lane_id
          where j.state = 'active' or j.state = 'pending' and l.is_open
         union all
         select format('run %s is %s with %s of %s jobs at an end', r.id, r.status,
                       sum(l.completed + l.failed + l.cancelled), sum(l.total))
           from run r join lane l on l.run_id = r.id and l.kind = 'probe:scenario'
          where r.completed_at is null
          group by r.id",
    ),
    // I3: a job ends once an epoch.
    (
        "dup",
        "select format('job %s completed %s times', a.job_id, count(*))
           from attempt a where a.outcome = 'completed' group by a.job_id
         having count(*) > 1
            and not exists (select from job j join lane l on l.id = j.lane_id
                             where j.id = a.job_id and l.kind <> 'probe:scenario')
         union all
         select format('job %s is %s with %s transcripts', j.id, j.state, count(t.job_id))
           from job j join lane l on l.id = j.lane_id left join transcript t on t.job_id = j.id
          where l.kind = 'probe:scenario'
          group by j.id having count(t.job_id) <> (j.state = 'completed')::int",
    ),
    // I6: the result that counts is that of the latest claim, and no claim ends two ways.
    (
        "stale_writes",
        "select format('job %s is %s by claim %s of %s', j.id, j.state, a.number, j.claims)
           from job j join attempt a on a.job_id = j.id
          where a.outcome in ('completed', 'failed') and a.number > j.epoch_claims and a.number <> j.claims
         union all
         select format('job %s is %s, but its claim %s was %s', j.id, j.state, a.number, a.outcome)
           from job j join attempt a on a.job_id = j.id and a.number = j.claims
          where j.state in ('completed', 'failed') and a.outcome::text <> j.state::text",
    ),
    // I5: counters are sums.
    (
        "progress_mismatch",
        "select format('lane %s counts %s/%s/%s/%s/%s of %s, its jobs are %s/%s/%s/%s/%s', l.id,
                       l.pending, l.active, l.completed, l.failed, l.cancelled, l.total,
                       s.pending, s.active, s.completed, s.failed, s.cancelled)
           from lane l
          cross join lateral (
             select count(*) filter (where j.state = 'pending' and l.is_open) as pending,
                    count(*) filter (where j.state = 'active') as active,
                    count(*) filter (where j.state = 'completed') as completed,
                    count(*) filter (where j.state = 'failed') as failed,
                    count(*) filter (where j.state = 'cancelled' or j.state = 'pending' and not l.is_open) as cancelled
               from job j where j.lane_id = l.id
          ) as s
          where (l.pending, l.active, l.completed, l.failed, l.cancelled)
                <> (s.pending, s.active, s.completed, s.failed, s.cancelled)",
    ),
    // I4: claims are numbered 1 to n and each has its end; a run's way through its states has no gap.
    (
        "audit_gaps",
        "select format('job %s: %s claims, %s attempts, the last is number %s', j.id, j.claims, count(a.number), max(a.number))
           from job j left join attempt a on a.job_id = j.id
          where j.state <> 'active'
          group by j.id having count(a.number) <> j.claims or coalesce(max(a.number), 0) <> j.claims
         union all
         select format('run %s: %s in the audit after %s', a.subject_id, a.before ->> 'status', a.previous)
           from (select subject_id, before,
                        lag(after ->> 'status', 1, 'PENDING') over (partition by subject_id order by id) as previous
                   from audit where subject_kind = 'run' and before ? 'status') as a
          where a.before ->> 'status' <> a.previous
         union all
         select format('run %s is %s, but the audit ends with %s', r.id, r.status, a.status)
           from run r
          cross join lateral (
             select coalesce((select after ->> 'status' from audit
                               where subject_kind = 'run' and subject_id = r.id::text and after ? 'status'
                               order by id desc limit 1), 'PENDING') as status
          ) as a
          where a.status <> r.status::text",
    ),
    // I7: one at a time, by the database's clock.
    (
        "overlaps",
        "select format('job %s: claim %s began %s before claim %s ended', a.job_id, b.number, a.ended_at - b.started_at, a.number)
           from attempt a join attempt b on b.job_id = a.job_id and b.number = a.number + 1
          where b.started_at < a.ended_at
         union all
         select format('job %s: claim %s ended %s before it began', job_id, number, started_at - ended_at)
           from attempt where ended_at < started_at",
    ),
    // What failed is counted by its error too.
    (
        "errors_mismatch",
        "select format('lane %s failed %s, by error %s', l.id, l.failed, coalesce(sum(e.failed), 0))
           from lane l left join lane_error e on e.lane_id = l.id
          group by l.id having l.failed <> coalesce(sum(e.failed), 0)",
    ),
];

/// Puts every rule's violations into the verdict.
pub async fn audit(db: &PgPool, verdict: &mut Verdict) -> anyhow::Result<()> {
    for (figure, sql) in RULES {
        verdict.none(figure, &sqlx::query_scalar(sql).fetch_all(db).await?);
    }
    Ok(())
}

/// I5 while everything moves: one statement sees one instant.
pub async fn counters_that_are_no_sums(db: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let (_, sql) = RULES.into_iter().find(|(figure, _)| *figure == "progress_mismatch").unwrap_or_default();
    sqlx::query_scalar(sql).fetch_all(db).await
}

/// How many probes there are, and how often they were claimed.
pub async fn executions(db: &PgPool) -> anyhow::Result<(i64, i64)> {
    let sql = "select count(*), coalesce(sum(j.claims), 0)::bigint
                 from job j join lane l on l.id = j.lane_id where l.kind = 'probe:scenario'";
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
