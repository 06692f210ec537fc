//! What is looked at all the time while faults happen.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::books;
use super::client::Client;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(150);

/// Looks at progress, as clients and as the database have it, until it is told to stop.
pub struct Progress {
    stop: CancellationToken,
    task: JoinHandle<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often somebody answered.
    pub samples: usize,
    /// What did not add up, or went backwards.
    pub wrong: Vec<String>,
}

impl Progress {
    /// Begins to look at the runs that `runs` will hold.
    pub fn watch(db: PgPool, client: Client, runs: Arc<Mutex<Vec<String>>>) -> Self {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut done: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
            while !token.is_cancelled() {
                if let Ok(wrong) = books::counters_that_are_no_sums(&db).await {
                    seen.samples += 1;
                    seen.wrong.extend(wrong);
                }
                // The latest is the one that moves most.
                let latest = runs.lock().unwrap_or_else(PoisonError::into_inner).last().cloned();
                if let Some(run) = latest {
                    look(&client, &run, &mut seen, &mut done).await;
                }
                tokio::select! {
                    () = tokio::time::sleep(EVERY) => {}
                    () = token.cancelled() => {}
                }
            }
            seen
        });
        Self { stop, task }
    }

    /// Stops looking.
    pub async fn end(self) -> anyhow::Result<Seen> {
        self.stop.cancel();
        Ok(self.task.await?)
    }
}

/// Looks at one run once; nobody need answer while faults happen.
async fn look(
    client: &Client,
    run: &str,
    seen: &mut Seen,
    done: &mut std::collections::HashMap<String, u64>,
) {
    let query =
        "query($id: ID!) { run(id: $id) { progress { total pending active completed failed cancelled } } }";
    let Ok(answer) = client.post(query, &json!({ "id": run })).await else { return };
    if !answer.is_data() {
        return;
    }
    seen.samples += 1;
    let progress = &answer.body["data"]["run"]["progress"];
    let number = |name: &str| progress[name].as_u64().unwrap_or_default();
    let ended = number("completed") + number("failed") + number("cancelled");
    if number("pending") + number("active") + ended != number("total") || progress.is_null() {
        seen.wrong.push(format!("run {run}: {progress}"));
    }
    let before = done.insert(run.to_owned(), ended).unwrap_or_default();
    if ended < before {
        seen.wrong.push(format!("run {run}: {before} jobs had ended, now {ended}"));
    }
}

/// From when to when the queue was surely paused: from the pause's answer to the resume's request.
pub type Window = (DateTime<Utc>, DateTime<Utc>);

/// Pauses the queue and lets it go on, again and again.
pub struct Pauses {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<Vec<Window>>>,
}

impl Pauses {
    /// Begins, with `every` between two changes.
    pub fn begin(db: PgPool, client: Client, every: Duration) -> Self {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move {
            let now = || sqlx::query_scalar::<_, DateTime<Utc>>("select clock_timestamp()").fetch_one(&db);
            let mut pauses = Vec::new();
            while !token.is_cancelled() {
                client
                    .insist("mutation { pauseQueue(reason: \"chaos\") { isPaused } }", &Value::Null)
                    .await?;
                let from = now().await?;
                tokio::time::sleep(every).await;
                let to = now().await?;
                client.insist("mutation { resumeQueue { isPaused } }", &Value::Null).await?;
                pauses.push((from, to));
                tokio::time::sleep(every).await;
            }
            Ok(pauses)
        });
        Self { stop, task }
    }

    /// Ends with a queue that is not paused; returns when it surely was.
    pub async fn end(self) -> anyhow::Result<Vec<Window>> {
        self.stop.cancel();
        self.task.await?
    }
}
