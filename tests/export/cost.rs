//! What an export holds while it is made: of memory, and in the database.

use runlane::domain::Role;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ask, with_transcripts};
use crate::cli::process::{Home, Running};
use crate::support::app::Cluster;

/// The most memory that a process has had so far, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_rows() {
    let cluster = Cluster::api_only(&[]).await;
    let small = with_transcripts(&cluster, 100).await;
    sqlx::query("update transcript set job_id = -job_id").execute(&cluster.db).await.unwrap();
    let rows = std::env::var("EXPORT_ROWS").map_or(24_000, |n| n.parse().unwrap());
    let large = with_transcripts(&cluster, rows).await;
    let home = Home::new();
    let node = Running::start(&mut home.configured(&["serve", "--execute=false"], &cluster.url));
    let address = node.address().await;
    // A token of the tests' own secret; the process has its own.
    let token = home.configured(&["token", "--sub", "root", "--role", "admin"], &cluster.url);
    let token = crate::cli::process::finish(token).await.ok().stdout;
    for format in ["jsonl", "csv", "parquet"] {
        let mut peaks = Vec::new();
        for run in [&small, &large] {
            let address = format!("http://{address}/runs/{run}/export?format={format}");
            let began = std::time::Instant::now();
            let mut answer =
                reqwest::Client::new().get(address).bearer_auth(token.trim()).send().await.unwrap();
            let mut length = 0;
            while let Some(piece) = answer.chunk().await.unwrap() {
                length += piece.len();
            }
            peaks.push(peak_kib(node.pid()));
            println!("{format}: {length} bytes, peak {} KiB, {:?}", peaks[peaks.len() - 1], began.elapsed());
            assert!(run == &small || length > rows as usize * 900);
        }
        // The kernel counts pages in batches for each processor: the peak may seem to have become a little less.
        let grown = peaks[1].saturating_sub(peaks[0]);
        assert!(grown < 64 * 1024, "{format}: the peak grew by {grown} KiB");
    }
    node.signal(nix::sys::signal::Signal::SIGTERM);
    node.end().await.ok();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_holds_no_statement_and_is_given_up() {
    let settings = [("RUNLANE_EXPORTS_MAX", "1"), ("RUNLANE_EXPORT_STALL_MAX_MS", "1500")];
    let cluster = Cluster::api_only(&settings).await;
    let run = with_transcripts(&cluster, 30_000).await;
    let mut client = TcpStream::connect(cluster.address).await.unwrap();
    let token = cluster.token("ada", Role::User);
    let request =
        format!("GET /runs/{run}/export HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut begun = [0; 1_024];
    client.read_exact(&mut begun).await.unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 200"));

    // Nobody else gets in while it runs: the one permit is taken.
    let busy = ask(&cluster, "ada", Role::User, &run, "").await;
    assert_eq!(busy.status(), 503);
    assert!(busy.headers().contains_key("retry-after"));
    let body: Value = busy.json().await.unwrap();
    assert_eq!(body["errors"][0]["extensions"]["code"], "UNAVAILABLE");
    // It stands still between two pages, once the buffers on the way are full, with nothing open in the database.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut idle = 0;
    loop {
        let open: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
              where datname = current_database() and pid <> pg_backend_pid()
                and (state <> 'idle' and backend_type = 'client backend' or backend_xmin is not null)",
        )
        .fetch_one(&cluster.db)
        .await
        .unwrap();
        idle += i32::from(open == 0);
        let answer = ask(&cluster, "ada", Role::User, &run, "format=csv").await;
        if answer.status() == 200 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the export is never given up");
    }
    assert!(idle > 0, "something was open in the database all the time");

    // What it reads now ends as an error: the last chunk of the body never comes.
    let mut rest = Vec::new();
    let end = client.read_to_end(&mut rest).await;
    assert!(end.is_err() || !rest.ends_with(b"0\r\n\r\n"), "it looks whole");
    assert!(rest.len() < 30_000_000);
    cluster.stop().await;
}
