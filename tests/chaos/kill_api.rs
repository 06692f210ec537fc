//! R2: servers are killed while clients start runs, and start them again until they hear an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::books;
use super::client::{Client, START};
use super::plan::Plan;
use super::stage::Stage;
use super::verdict::Verdict;

const CLIENTS: usize = 8;
const SERVERS: usize = 2;

/// R2.
pub async fn run(plan: Plan) -> anyhow::Result<Verdict> {
    let submits = plan.pick(1_500, 10_000);
    let kill_every = Duration::from_millis(plan.pick(700, 3_000));
    let stage = Stage::begin(plan, "R2", &[]).await?;
    // Every server comes back under its old address.
    let mut servers = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..SERVERS {
        let (node, address) = serve(&stage, "127.0.0.1:0").await?;
        servers.push(node);
        addresses.push(address);
    }
    let client = Client::new(addresses.clone())?;
    let definition = client.definition(3).await?;

    let next = Arc::new(AtomicUsize::new(0));
    let tries = Arc::new(AtomicUsize::new(0));
    let done = CancellationToken::new();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (client, definition, next, tries) =
                (client.clone(), definition.clone(), Arc::clone(&next), Arc::clone(&tries));
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= submits {
                        return anyhow::Ok(acknowledged);
                    }
                    let key = format!("key-{i}");
                    acknowledged.push((key.clone(), submit(&client, &definition, &key, &tries).await?));
                }
            })
        })
        .collect();

    let nemesis = {
        let done = done.clone();
        let mut rng = plan.rng();
        tokio::spawn(async move {
            let mut kills = 0;
            loop {
                tokio::select! {
                    () = sleep(kill_every.mul_f64(rng.random_range(0.7..1.3))) => {}
                    () = done.cancelled() => return anyhow::Ok((stage, servers, kills)),
                }
                let i = rng.random_range(0..SERVERS);
                servers.remove(i).kill().await?;
                let (node, _) = serve(&stage, &addresses[i].to_string()).await?;
                servers.insert(i, node);
                kills += 1;
            }
        })
    };
    let mut acknowledged = Vec::new();
    for task in clients {
        acknowledged.extend(task.await??);
    }
    done.cancel();
    let (stage, servers, kills) = nemesis.await??;

    let mut verdict = Verdict::default();
    verdict.figure("submits", submits);
    verdict.figure("kills", kills);
    verdict.figure("tries", tries.load(Ordering::Relaxed));
    verdict.must(kills > 0, "nothing was killed");
    verdict.must(tries.load(Ordering::Relaxed) > submits, "no kill was felt by a client");
    verdict.none("lost", &books::lost_runs(&stage.db, &acknowledged).await?);
    let rows: i64 = sqlx::query_scalar("select count(*) from run").fetch_one(&stage.db).await?;
    verdict.figure("rows", rows);
    verdict.must(rows == i64::try_from(submits)?, "a key has not exactly one row");
    let half: Vec<String> = sqlx::query_scalar(
        "select format('run %s has %s jobs', r.id, count(j.id))
           from run r left join lane l on l.run_id = r.id and l.kind = 'probe:scenario'
           left join current_job j on j.lane_id = l.id
          group by r.id having count(j.id) <> 3",
    )
    .fetch_all(&stage.db)
    .await?;
    verdict.none("half_made", &half);
    verdict.none("progress_mismatch", &books::counters_that_are_no_sums(&stage.db).await?);
    for server in servers {
        server.kill().await?;
    }
    stage.end().await?;
    Ok(verdict)
}

async fn serve(stage: &Stage, listen: &str) -> anyhow::Result<(super::node::Node, std::net::SocketAddr)> {
    let mut node = stage.node(&["serve", "--execute=false"], &[("RUNLANE_LISTEN", listen)]).await?;
    let address = node.address().await?;
    Ok((node, address))
}

/// Starts a run under a key, again and again until somebody says that it is there.
async fn submit(client: &Client, definition: &str, key: &str, tries: &AtomicUsize) -> anyhow::Result<String> {
    let input = json!({ "definitionId": definition, "models": ["mock/echo"], "idempotencyKey": key });
    loop {
        tries.fetch_add(1, Ordering::Relaxed);
        match client.post(START, &json!({ "input": input })).await {
            Ok(answer) if answer.is_data() => {
                return Ok(answer.body["data"]["startRun"]["id"].as_str().context("an id")?.to_owned());
            }
            Ok(answer) => anyhow::ensure!(answer.status == 503, "refused: {answer:?}"),
            // Killed while it answered, or not yet there again.
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}
