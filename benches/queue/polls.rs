//! Progress polls at a steady rate while the queue works as fast as it can.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::body::{Body, Bytes};
use axum::http::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cpu::Meter;
use crate::driver::{Answer, Driver};
use crate::fill::{self, Fill};
use crate::process::Node;
use crate::reads::PROGRESS;
use crate::report::{Report, figure, heading, ms, percentiles, quantile, rate};
use crate::scale::Scale;
use crate::stage::{Client, Stage};

/// Connections that poll.
const POLLERS: u32 = 16;
/// Jobs that a node claims at once.
const BATCH: u32 = 500;
/// A poll takes no longer than any other read.
const POLL_MAX: Duration = Duration::from_millis(10);
/// The rate counts as reached from here on: the last polls of each connection end after its time is up.
const REACHED: f64 = 0.99;

/// Polls a server process of its own, first on a queue where nothing moves, then beside a node at full rate.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let [wanted, seconds] = scale.polled;
    heading(&format!("{wanted} progress polls a second by {POLLERS} connections for {seconds} s"));
    let database = stage.database().await?;
    let (server, client) = Node::serve(stage, &database).await?;
    fill::scenarios(&client).await?;
    Fill::waiting(scale.stored, 1).store(&database).await?;
    let run = fill::only_run(&database).await?;
    let polls = Polls::of(&client, &run, wanted, seconds)?;

    let meter = Meter::of(server.pid())?;
    let quiet = polls.send().await?;
    let used = meter.used()? / u32::try_from(quiet.len())?;
    figure(
        "polls, nothing else going on",
        &format!("{}; processor of the server {} each", said(&quiet, seconds), ms(used)),
    );

    let (enough, driver) = (CancellationToken::new(), Driver::register(&database, BATCH).await?);
    let begun = Instant::now();
    let load = tokio::spawn(driver.run(Answer::Echo, Some(enough.clone())));
    let beside = polls.send().await?;
    let time = begun.elapsed();
    let left = database.number("select sum(pending) from lane").await?;
    enough.cancel();
    let jobs = load.await??.jobs;
    ensure!(left > 0 || scale.is_short(), "the queue was empty before the polls ended");
    figure("polls beside a node that claims and completes", &said(&beside, seconds));
    figure("jobs that the node completed meanwhile", &format!("{:.0}/s", rate(jobs as f64, time)));
    fill::agree(&database).await?;
    let done = beside.len() as f64 / f64::from(seconds);
    report.goal_rate_from(5, "progress polls with the queue at full rate", done, f64::from(wanted) * REACHED);
    report.goal_within(5, "p99 of such a poll", quantile(&beside, 0.99), POLL_MAX);
    drop(server);
    stage.drop(database).await
}

fn said(times: &[Duration], seconds: u32) -> String {
    format!("{:.0}/s; {}", times.len() as f64 / f64::from(seconds), percentiles(times))
}

/// The same request again and again, by a client that does as little as possible besides.
struct Polls {
    address: SocketAddr,
    token: String,
    body: Bytes,
    /// Between two polls of one connection.
    pause: Duration,
    seconds: u32,
}

impl Polls {
    fn of(client: &Client, run: &str, wanted: u32, seconds: u32) -> anyhow::Result<Self> {
        let (address, token) = client.target();
        let body = serde_json::to_vec(&json!({ "query": PROGRESS, "variables": { "id": run } }))?.into();
        Ok(Self {
            address,
            token: token.to_owned(),
            body,
            pause: Duration::from_secs(1) * POLLERS / wanted,
            seconds,
        })
    }

    /// How long each poll took that was answered in time, counted from when it was due: what is late for being kept
    /// waiting is not forgotten.
    async fn send(&self) -> anyhow::Result<Vec<Duration>> {
        let mut pollers = Vec::new();
        for _ in 0..POLLERS {
            pollers.push(self.connect().await?);
        }
        let begin = Instant::now();
        let end = begin + Duration::from_secs(self.seconds.into());
        let pollers = pollers.into_iter().zip(0..).map(|(mut sender, i)| async move {
            let mut times = Vec::new();
            let mut due = begin + self.pause * i / POLLERS;
            while due < end && Instant::now() < end {
                tokio::time::sleep_until(due).await;
                self.poll(&mut sender).await?;
                times.push(due.elapsed());
                due += self.pause;
            }
            anyhow::Ok(times)
        });
        Ok(futures_util::future::try_join_all(pollers).await?.concat())
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Body>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("a poller's connection broke: {error}");
            }
        });
        Ok(sender)
    }

    async fn poll(&self, sender: &mut SendRequest<Body>) -> anyhow::Result<()> {
        let request = Request::post("/graphql")
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Body::from(self.body.clone()))?;
        sender.ready().await?;
        let answer = sender.send_request(request).await?;
        ensure!(answer.status().is_success(), "a poll was answered {}", answer.status());
        let body =
            axum::body::to_bytes(Body::new(answer.into_body()), usize::MAX).await.context("an answer")?;
        ensure!(body.starts_with(br#"{"data":{"run":{"status""#), "{}", String::from_utf8_lossy(&body));
        Ok(())
    }
}
