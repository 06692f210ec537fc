//! What the tests of trouble have in common.

use sqlx::PgPool;

use crate::queue::support::until_sql;
use crate::support::app::Cluster;
use crate::support::proxy::{Harm, Point, Strike};

/// Silence is noticed soon. The lease outlasts every test: what waits for its end does not end in time.
pub const PATIENT: [(&str, &str); 8] = [
    ("RUNLANE_LEASE_MS", "600000"),
    ("RUNLANE_LEASE_RENEWAL_MS", "200"),
    ("RUNLANE_STATEMENT_TIMEOUT_MS", "1500"),
    ("RUNLANE_DATABASE_SILENCE_MS", "500"),
    ("RUNLANE_POOL_ACQUIRE_TIMEOUT_MS", "3000"),
    ("RUNLANE_DATABASE_RETRIES", "5"),
    ("RUNLANE_DATABASE_RETRY_DELAY_MS", "10"),
    ("RUNLANE_POLL_INTERVAL_MS", "200"),
];

/// Every way in which the answer to the commit of such work can fail to arrive.
pub fn harms(work: &'static str) -> [Strike; 5] {
    harms_at(Point::Commit(work))
}

/// Every way in which the answer to such a request can fail to arrive.
pub fn harms_at(point: Point) -> [Strike; 5] {
    let at = Strike::at(point);
    [
        at.before(Harm::Cut),
        at.during(Harm::Reset),
        at.after(Harm::Cut),
        at.before(Harm::Mute),
        at.after(Harm::Mute),
    ]
}

/// What must hold in a database at rest; each is a statement that finds violations.
const VIOLATIONS: [(&str, &str); 4] = [
    (
        "a lane's counters are not the sums over its jobs",
        "select l.id::text from lane l
          cross join lateral (
            select count(*) as total, count(*) filter (where state = 'pending') as pending,
                   count(*) filter (where state = 'active') as active,
                   count(*) filter (where state = 'completed') as completed,
                   count(*) filter (where state = 'failed') as failed,
                   count(*) filter (where state = 'cancelled') as cancelled
              from current_job j where j.lane_id = l.id
          ) as s
          where l.is_settled
            and (l.total, l.pending, l.active, l.completed, l.failed, l.cancelled)
                is distinct from (s.total, s.pending, s.active, s.completed, s.failed, s.cancelled)",
    ),
    (
        "a job's attempts are not 1 to n",
        "select j.id::text from current_job j
           left join attempt a on a.job_id = j.id
          group by j.id, j.claims, j.state
         having count(a.number) <> j.claims - (j.state = 'active')::int
             or coalesce(max(a.number), 0) <> count(a.number)",
    ),
    (
        "a completed probe has no transcript, or another one has",
        "select j.id::text from current_job j
           join lane l on l.id = j.lane_id and l.kind = 'probe:scenario'
           left join transcript t on t.job_id = j.id
          where (j.state = 'completed') <> (t.job_id is not null)",
    ),
    (
        "a job has completed more than once in an epoch",
        "select a.job_id::text from attempt a join current_job j on j.id = a.job_id
          where a.outcome = 'completed' and a.number > j.epoch_claims
          group by a.job_id having count(*) > 1",
    ),
];

/// Panics with what is not as it must be.
pub async fn assert_exact(db: &PgPool) {
    for (what, sql) in VIOLATIONS {
        let found: Vec<String> = sqlx::query_scalar(sql).fetch_all(db).await.unwrap();
        assert!(found.is_empty(), "{what}: {found:?}");
    }
}

/// One number.
pub async fn number(db: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(db).await.unwrap()
}

/// The sum of a counter that a node tells at `/metrics`.
pub async fn metric(cluster: &Cluster, name: &str) -> f64 {
    let text =
        reqwest::get(format!("http://{}/metrics", cluster.address)).await.unwrap().text().await.unwrap();
    text.lines()
        .filter(|l| l.starts_with(name))
        .map(|l| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// Until so many sessions wait for a lock.
pub async fn until_locked_out(db: &PgPool, sessions: i64) {
    let waiting = format!(
        "select count(*) >= {sessions} from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock'"
    );
    until_sql(db, "locked out", &waiting).await;
}
