//! The database: whether it answers, what it promises, and what waits there for somebody.

use std::time::{Duration, Instant};

use chrono::TimeDelta;

use super::report::Report;
use crate::app::{CONNECTIONS_BESIDES_POOLS, database_url, patience, pool_settings};
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::store::{OpenProblems, SchemaState, ServerFacts, Store, connect, reach};

/// How long an answer is waited for.
const WAIT: Duration = Duration::from_secs(3);
/// The oldest PostgreSQL that will do, as it numbers itself.
const VERSION_MIN: i32 = 150_000;
/// Clocks further apart make log lines hard to compare, and tokens start too late or end too early.
const CLOCKS_APART_MAX: TimeDelta = TimeDelta::seconds(2);

/// Looks at the database of the configuration.
pub async fn examine(config: &Config, clock: &dyn Clock, report: &mut Report) {
    let Ok(url) = database_url(config) else {
        report.warning(
            "database",
            "DATABASE_URL is not set: `serve` and `work` refuse to start; `dev` and `demo` bring a PostgreSQL of their own",
        );
        return;
    };
    if let Err(error) = reach(&url, WAIT).await {
        return report.error("database", format!("DATABASE_URL: {error}"));
    }
    let pool = match connect(&url, "runlane doctor", pool_settings(&config.numbers, 1)) {
        Ok(pool) => pool,
        Err(error) => return report.error("database", format!("DATABASE_URL: {error}")),
    };
    let store = Store::new(pool).patient(patience(&config.numbers));
    let asked = Instant::now();
    match store.server_facts().await {
        Ok(facts) => {
            let took = asked.elapsed();
            server(config, &facts, took, report);
            // Its clock was read somewhere within the question.
            clocks(clock.now() - facts.now, TimeDelta::from_std(took).unwrap_or_default(), report);
        }
        Err(error) => return report.error("database", format!("it does not say what it is: {error}")),
    }
    match store.schema_state().await {
        Ok(state) if schema(&state, report) => match store.open_problems().await {
            Ok(problems) => open_problems(config, &problems, report),
            Err(error) => report.error("queue", format!("the queue cannot be read: {error}")),
        },
        Ok(_) => {}
        Err(error) => report.error("schema", format!("the migrations cannot be read: {error}")),
    }
    store.close().await;
}

fn server(config: &Config, facts: &ServerFacts, took: Duration, report: &mut Report) {
    let megabytes = facts.size_bytes / (1 << 20);
    if facts.version_num < VERSION_MIN {
        report.error("database", format!("PostgreSQL {} is too old: 15 or newer is needed", facts.version));
    } else {
        let ms = took.as_secs_f64() * 1_000.0;
        report.ok("database", format!("PostgreSQL {} answers in {ms:.1} ms; {megabytes} MiB", facts.version));
    }
    if facts.is_standby {
        report.error("database", "it is a standby and takes no changes: connect to the primary");
    }
    let gaps = facts.durability.gaps();
    if gaps.is_empty() {
        let commit = &facts.durability.synchronous_commit;
        report
            .ok("durability", format!("what is confirmed survives a crash (synchronous_commit = {commit})"));
    } else {
        let message = format!("PostgreSQL may lose what it has confirmed: {}", gaps.join(", "));
        if config.allow_unsafe_postgres {
            report.warning("durability", format!("{message}; RUNLANE_ALLOW_UNSAFE_POSTGRES accepts that"));
        } else {
            report.error("durability", format!("{message}: switch it on"));
        }
    }
    match (facts.synchronous_standbys, facts.standbys) {
        (Some(0), Some(standbys)) => report.warning(
            "failover",
            format!("no synchronous standby ({standbys} in all): failover without loss needs one (synchronous_standby_names)"),
        ),
        (Some(n), _) => report.ok("failover", format!("synchronous standbys: {n}")),
        (None, _) => report.warning(
            "failover",
            "whether there is a synchronous standby cannot be seen: grant this user pg_monitor; failover without loss needs one",
        ),
    }
    connections(config, facts, report);
    if facts.old_transactions > 0 {
        let n = facts.old_transactions;
        report.warning(
            "transactions",
            format!("{n} open for more than five minutes: they keep dead rows and slow claims down; see pg_stat_activity"),
        );
    }
}

fn connections(config: &Config, facts: &ServerFacts, report: &mut Report) {
    let n = &config.numbers;
    let wanted = i64::from(n.api_pool_size + n.orchestrator_pool_size + CONNECTIONS_BESIDES_POOLS);
    let (most, taken) = (i64::from(facts.connections_max), facts.connections);
    let message = format!("one process takes up to {wanted} of {most} connections; {taken} are taken now");
    if wanted > most {
        report.error(
            "connections",
            format!("{message}: lower RUNLANE_API_POOL_SIZE, or raise max_connections"),
        );
    } else if wanted > most - taken {
        report.warning("connections", format!("{message}: a further process may not get all of its own"));
    } else {
        report.ok("connections", message);
    }
}

fn clocks(ahead: TimeDelta, uncertain: TimeDelta, report: &mut Report) {
    let ms = ahead.num_milliseconds();
    if ahead.abs() - uncertain > CLOCKS_APART_MAX {
        report.warning(
            "clock",
            format!("this machine's clock is {ms} ms ahead of the database's: leases do not care, tokens and logs do; set it"),
        );
    } else {
        report.ok("clock", format!("{ms} ms ahead of the database's"));
    }
}

/// Whether the tables can be read.
fn schema(state: &SchemaState, report: &mut Report) -> bool {
    if !state.changed.is_empty() {
        let message =
            format!("migrations {:?} were applied with another text, or not to their end", state.changed);
        report.error("schema", format!("{message}: restore a backup, or use the program that applied them"));
        return false;
    }
    if state.unknown > 0 {
        let n = state.unknown;
        report.error("schema", format!("{n} migrations of a newer program are applied: use that one"));
        return false;
    }
    if state.pending > 0 {
        let n = state.pending;
        report.warning(
            "schema",
            format!("{n} migrations are to be applied: `serve`, `work` and `migrate` do so"),
        );
        return false;
    }
    report.ok("schema", "up to date");
    true
}

fn open_problems(config: &Config, problems: &OpenProblems, report: &mut Report) {
    let OpenProblems { paused_by, nodes, dead_nodes, waiting, dead_letters } = problems;
    let mut is_fine = true;
    let mut warn = |message: String| {
        is_fine = false;
        report.warning("queue", message);
    };
    if let Some(by) = paused_by {
        warn(format!("paused by {by}: nothing starts until `runlane queue resume`"));
    }
    if *nodes == 0 && *waiting > 0 {
        warn(format!("{waiting} jobs wait and no node executes: start `serve` or `work`"));
    }
    if *dead_nodes > 0 && *nodes > 0 {
        let lease = config.numbers.lease_ms;
        warn(format!(
            "{dead_nodes} nodes have stopped renewing; the others give their jobs back within {lease} ms"
        ));
    } else if *dead_nodes > 0 {
        warn(format!(
            "{dead_nodes} nodes have stopped renewing and nobody gives their jobs back: start a node"
        ));
    }
    if *dead_letters > 0 {
        warn(format!("{dead_letters} dead letters wait for somebody: `runlane deadletter list`"));
    }
    if is_fine {
        report.ok("queue", format!("{nodes} nodes execute; {waiting} jobs wait"));
    }
}
