//! Exports: what the files hold, who may have them, and what they cost while they are made.

mod cost;
mod files;

use std::path::Path;

use reqwest::Response;
use runlane::domain::Role;
use serde_json::{Value, json};

use crate::support::app::{Cluster, python};

/// Asks for an export as this person.
async fn ask(cluster: &Cluster, subject: &str, role: Role, run: &str, query: &str) -> Response {
    let address = format!("http://{}/runs/{run}/export?{query}", cluster.address);
    let request = reqwest::Client::new().get(address).bearer_auth(cluster.token(subject, role));
    request.send().await.unwrap()
}

/// The bytes of an export that `ada`, whose run it is, asks for.
async fn bytes(cluster: &Cluster, run: &str, query: &str) -> Vec<u8> {
    let answer = ask(cluster, "ada", Role::User, run, query).await;
    assert_eq!(answer.status(), 200, "{query}");
    answer.bytes().await.unwrap().to_vec()
}

/// The rows of a file, as Python reads them: every value as JSON, instants and JSON columns as texts.
fn read_by_python(file: &Path) -> Vec<Value> {
    const READER: &str = r#"
import csv, json, sys
path = sys.argv[1]
csv.field_size_limit(1 << 30)
if path.endswith(".jsonl"):
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
elif path.endswith(".csv"):
    rows = list(csv.DictReader(open(path, encoding="utf-8", newline="")))
else:
    import fastparquet
    frame = fastparquet.ParquetFile(path).to_pandas()
    rows = [{name: None if value is None or value != value else value for name, value in row.items()}
            for row in frame.to_dict("records")]
def plain(value):
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if hasattr(value, "isoformat"):
        # The file says UTC; this reader leaves the zone away.
        return (value if value.tzinfo else value.tz_localize("UTC")).isoformat()
    return value
print(json.dumps([{name: plain(value) for name, value in row.items()} for row in rows]))
"#;
    let done = std::process::Command::new(python()).args(["-c", READER]).arg(file).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

/// A run that is paused before anything starts, with this many transcripts that no model wrote, of about 1 KiB each.
async fn with_transcripts(cluster: &Cluster, n: i32) -> String {
    let run = cluster.run(&cluster.definition(1).await, &["mock/echo"], json!({})).await;
    sqlx::query(
        "insert into transcript (job_id, lane_id, scenario_id, turns, usage, score, cost_usd, latency_ms, created_at)
         select 1000000 + i, l.id, (select s.id from scenario s join current_job j on j.scenario_id = s.id where j.lane_id = l.id),
                json_build_array(json_build_object('response', (select string_agg(md5(i::text || k), '') from generate_series(1, 30) as k))),
                '{}', 3, 0.001, 5, now()
           from lane l, generate_series(1, $2) as i where l.run_id = $1::uuid and l.kind = 'probe:scenario'",
    )
    .bind(&run)
    .bind(n)
    .execute(&cluster.db)
    .await
    .unwrap();
    run
}
