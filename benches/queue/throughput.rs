//! Jobs claimed and completed a second without Python, beside the plainest queue on the same PostgreSQL.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::cpu::Meter;
use crate::driver::{Answer, Driver, Tally};
use crate::fill::{self, Fill};
use crate::floor;
use crate::report::{Report, figure, heading, median, ms, rate};
use crate::scale::Scale;
use crate::stage::{Database, Stage, serve, stop};

/// One way to drain a queue.
struct Way {
    what: &'static str,
    lanes: i32,
    nodes: usize,
    batch: u32,
    /// Under a limit on the provider that is never reached.
    limited: bool,
    /// Transcripts are stored.
    answers: bool,
}

const WAYS: [Way; 9] = [
    Way {
        what: "1 node, 1 lane, batches of 500, no transcripts",
        lanes: 1,
        nodes: 1,
        batch: 500,
        limited: false,
        answers: false,
    },
    Way {
        what: "1 node, 1 lane, batches of 500",
        lanes: 1,
        nodes: 1,
        batch: 500,
        limited: false,
        answers: true,
    },
    Way {
        what: "2 nodes, 1 lane, batches of 500",
        lanes: 1,
        nodes: 2,
        batch: 500,
        limited: false,
        answers: true,
    },
    Way {
        what: "8 nodes, 1 lane, batches of 500",
        lanes: 1,
        nodes: 8,
        batch: 500,
        limited: false,
        answers: true,
    },
    Way {
        what: "2 nodes, 100 lanes, batches of 500",
        lanes: 100,
        nodes: 2,
        batch: 500,
        limited: false,
        answers: true,
    },
    Way {
        what: "2 nodes, 1,000 lanes, batches of 500",
        lanes: 1_000,
        nodes: 2,
        batch: 500,
        limited: false,
        answers: true,
    },
    Way {
        what: "1 node, 1 lane, batches of 32 (the default slots)",
        lanes: 1,
        nodes: 1,
        batch: 32,
        limited: false,
        answers: true,
    },
    Way {
        what: "1 node, 1 lane, batches of 500, a limit",
        lanes: 1,
        nodes: 1,
        batch: 500,
        limited: true,
        answers: true,
    },
    Way {
        what: "2 nodes, 1,000 lanes, batches of 500, a limit",
        lanes: 1_000,
        nodes: 2,
        batch: 500,
        limited: true,
        answers: true,
    },
];

/// What the log of the database may grow by for a job that does nothing: its claim, its end, its attempt, the counters.
const WAL_MAX_BYTES: f64 = 1_536.0;

/// Measures each way and the floor in turn, as often as there are rounds.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    heading(&format!("{} no-op jobs claimed and completed, without Python", scale.driven));
    let mut floors: [Vec<f64>; 2] = Default::default();
    let mut floor_costs: [Vec<Duration>; 2] = Default::default();
    let mut rates: [Vec<f64>; WAYS.len()] = Default::default();
    let mut costs: [Vec<Duration>; WAYS.len()] = Default::default();
    let mut logged: [Vec<f64>; WAYS.len()] = Default::default();
    let mut tallies = [Tally::default(); WAYS.len()];
    for _ in 0..scale.rounds {
        for clients in [1, 2] {
            let database = stage.database().await?;
            let items = u64::try_from(scale.driven)?;
            floor::create(&database).await?;
            floor::insert(&database, items).await?;
            database.settle().await?;
            let meter = Meter::ours()?;
            let time = floor::drain(&database, items, clients, 500).await?;
            floor_costs[clients - 1].push(meter.used()?);
            floors[clients - 1].push(rate(f64::from(scale.driven), time));
            stage.drop(database).await?;
        }
        for (i, way) in WAYS.iter().enumerate() {
            let (time, used, wal, tally) = drive(stage, scale, way).await?;
            logged[i].push(wal / tally.jobs as f64);
            costs[i].push(used);
            rates[i].push(rate(tally.jobs as f64, time));
            tallies[i] = tally;
        }
    }
    for clients in [1, 2] {
        let (rate, used) = (median(&floors[clients - 1]), median(&floor_costs[clients - 1]));
        let value = format!("{rate:.0} jobs/s; processor {:.1} µs a job", each(used, scale.driven));
        figure(&format!("floor: one table, {clients} client(s), batches of 500"), &value);
    }
    for (i, way) in WAYS.iter().enumerate() {
        let (rate, used, tally) = (median(&rates[i]), median(&costs[i]), &tallies[i]);
        let batch = |time: Duration| ms(time / tally.claims);
        let value = format!(
            "{rate:.0} jobs/s, {:.2} of the floor; processor {:.1} µs a job, {:.1} times the floor's; \
             WAL {:.0} bytes a job; a batch: claim {}, payloads {}, ends {}",
            rate / median(&floors[1]),
            each(used, scale.driven),
            used.as_secs_f64() / median(&floor_costs[1]).as_secs_f64(),
            median(&logged[i]),
            batch(tally.claiming),
            batch(tally.reading),
            batch(tally.ending)
        );
        figure(way.what, &value);
    }
    let of = |way: usize| median(&rates[way]);
    report.goal_times_from(1, "no-op jobs, 1 node", of(0), ("the floor", median(&floors[1])), 0.6);
    report.goal_times_from(1, "no-op jobs, 2 nodes", of(2), ("1 node", of(1)), 1.0);
    report.goal_times_from(1, "no-op jobs, 8 nodes", of(3), ("1 node", of(1)), 0.8);
    report.goal_bytes_within(8, "WAL of a no-op job", median(&logged[0]), WAL_MAX_BYTES);
    Ok(())
}

/// Microseconds a job.
fn each(time: Duration, jobs: i32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(jobs)
}

async fn drive(stage: &Stage, scale: &Scale, way: &Way) -> anyhow::Result<(Duration, Duration, f64, Tally)> {
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    fill::scenarios(&client).await?;
    stop(app).await;
    let fill = Fill::waiting(scale.driven, way.lanes);
    fill.store(&database).await?;
    if way.limited {
        sqlx::raw_sql(
            "insert into rate_limit (name, in_flight_max, requests_per_minute, tokens_per_minute)
             values ('mock', 1000000, 2000000000, 2000000000)",
        )
        .execute(&database.db)
        .await?;
    }
    if !way.answers {
        forget_transcripts(&database).await?;
    }
    let mut drivers = Vec::new();
    for _ in 0..way.nodes {
        drivers.push(Driver::register(&database, way.batch).await?);
    }
    let logged = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
    let before = database.number(logged).await?;
    let meter = Meter::ours()?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for driver in drivers {
        tasks.spawn(driver.run(if way.answers { Answer::Echo } else { Answer::Nothing }, None));
    }
    let mut all = Tally::default();
    while let Some(done) = tasks.join_next().await {
        let tally = done??;
        all.jobs += tally.jobs;
        all.claims += tally.claims;
        all.claiming += tally.claiming;
        all.reading += tally.reading;
        all.ending += tally.ending;
    }
    let (time, used) = (begun.elapsed(), meter.used()?);
    let wal = database.number(logged).await? - before;
    check(&database, i64::from(fill.total()), way.answers).await?;
    stage.drop(database).await?;
    Ok((time, used, wal as f64, all))
}

/// Has transcripts not stored: what is left is the queue's own work. Their insert is taken out of the function that ends jobs: a
/// trigger that refused them would itself be work.
pub async fn forget_transcripts(database: &Database) -> anyhow::Result<()> {
    sqlx::raw_sql(
        r"do $$
          declare
              v_before text := pg_get_functiondef('end_attempts'::regproc);
              v_after  text := regexp_replace(v_before, '(insert into transcript.*?from fenced f)\s+where', '\1 where false and');
          begin
              if v_after = v_before then
                  raise exception 'end_attempts inserts no transcripts';
              end if;
              execute v_after;
          end $$",
    )
    .execute(&database.db)
    .await?;
    Ok(())
}

/// Every job completed once, with its attempt and its transcript; every counter and every run says so.
pub async fn check(database: &Database, total: i64, answers: bool) -> anyhow::Result<()> {
    fill::agree(database).await?;
    let n = database.number("select count(*) from transcript").await?;
    let wanted = if answers { total } else { 0 };
    ensure!(n == wanted, "{n} transcripts instead of {wanted}");
    for (what, sql) in [
        (
            "jobs that completed at their first claim",
            "select count(*) from current_job where state = 'completed' and claims = 1",
        ),
        ("attempts", "select count(*) from attempt where outcome = 'completed' and number = 1"),
        ("jobs counted as completed", "select sum(completed) from lane"),
        ("jobs tallied as completed", "select sum(completed) from queue_minute"),
    ] {
        let n = database.number(sql).await?;
        ensure!(n == total, "{n} {what} instead of {total}");
    }
    let open = database.number("select count(*) from run where status <> 'COMPLETED'").await?;
    ensure!(open == 0, "{open} runs are not COMPLETED");
    Ok(())
}
