//! Claims from a crowd, a million jobs in a thousand lanes, beside claims from a queue that is nearly empty.

use std::time::{Duration, Instant};

use anyhow::ensure;
use runlane::domain::JobKind;

use crate::cpu::Meter;
use crate::driver::{Answer, Driver};
use crate::fill::{self, Fill};
use crate::report::{Report, figure, heading, median, ms, percentiles};
use crate::scale::Scale;
use crate::stage::{Database, Stage, serve, stop};

/// Jobs of one claim, the default slots of a node and many, and how many claims there are of as many requests elsewhere.
const BATCHES: [(u32, usize); 2] = [(32, 10), (500, 50)];
/// Of the lanes with few jobs about one in so many is emptied within a round, so that they stay as many as the crowd's.
const EMPTIED: i32 = 8;
/// Claims of a new session that are not timed.
const WARM_UP: usize = 6;
/// How much longer a claim may take in a crowd.
const LONGER_AT_MOST: f64 = 1.2;

/// Times claims in turns: from the crowd, from as many lanes with few jobs, and from one lane with few jobs.
pub async fn measure(stage: &Stage, scale: &Scale, report: &mut Report) -> anyhow::Result<()> {
    let lanes = if scale.is_short() { 100 } else { 1_000 };
    heading(&format!("claims with {} jobs waiting in {lanes} lanes, and with few", scale.stored));
    for (batch, share) in BATCHES {
        let claims = (scale.requests / share).max(1);
        let of =
            |claims: usize| -> anyhow::Result<i32> { Ok(i32::try_from(batch)? * i32::try_from(claims)?) };
        let taken = of(claims)?;
        let rounds = i32::try_from(scale.rounds + 1)?;
        let spread = (of(claims + WARM_UP)? * EMPTIED / lanes + 1) * lanes;
        let queues = [(scale.stored.max(taken * rounds), lanes), (spread, lanes), (taken * rounds, 1)];
        let mut places = Vec::new();
        for (jobs, lanes) in queues {
            places.push(Place::fill(stage, jobs, lanes, batch).await?);
        }
        let mut times: [Vec<Duration>; 3] = Default::default();
        let mut used = [Duration::ZERO; 3];
        for round in 0..=scale.rounds {
            for i in 0..places.len() {
                let meter = Meter::ours()?;
                let taken = time_claims(&places[i].driver, claims, batch).await?;
                // The first claims of a session are like no others.
                if round > 0 {
                    used[i] += meter.used()?;
                    times[i].extend(taken);
                }
            }
            if round < scale.rounds {
                let emptied =
                    std::mem::replace(&mut places[1], Place::fill(stage, spread, lanes, batch).await?);
                emptied.close(stage).await?;
                time_claims(&places[1].driver, WARM_UP, batch).await?;
            }
        }
        let names = [
            format!("{} jobs in {lanes} lanes", queues[0].0),
            format!("{} jobs in {lanes} lanes", queues[1].0),
            format!("{} jobs in 1 lane", queues[2].0),
        ];
        for ((name, times), used) in names.iter().zip(&times).zip(used) {
            let used = used / u32::try_from(times.len())?;
            let value = format!("{}; processor of a claim and its end {}", percentiles(times), ms(used));
            figure(&format!("a claim of {batch} from {name}"), &value);
        }
        let crowd = median(&times[0]);
        for (name, times) in names.iter().zip(&times).skip(1) {
            let what = format!("a claim of {batch} from {}", names[0]);
            report.goal_times_within(
                6,
                &what,
                crowd,
                (&format!("one from {name}"), median(times)),
                LONGER_AT_MOST,
            );
        }
        for place in places {
            place.close(stage).await?;
        }
    }
    Ok(())
}

/// A queue, and a node that claims from it.
struct Place {
    driver: Driver,
    database: Database,
}

impl Place {
    async fn fill(stage: &Stage, jobs: i32, lanes: i32, batch: u32) -> anyhow::Result<Self> {
        let database = filled(stage, jobs, lanes).await?;
        Ok(Self { driver: Driver::register(&database, batch).await?, database })
    }

    /// Checks it, and removes it.
    async fn close(self, stage: &Stage) -> anyhow::Result<()> {
        self.driver.close().await;
        fill::agree(&self.database).await?;
        stage.drop(self.database).await
    }
}

async fn filled(stage: &Stage, jobs: i32, lanes: i32) -> anyhow::Result<Database> {
    let database = stage.database().await?;
    let (app, client) = serve(&database, false, &[]).await?;
    fill::scenarios(&client).await?;
    stop(app).await;
    Fill::waiting(jobs, lanes).store(&database).await?;
    Ok(database)
}

/// Claims and completes so many batches; returns how long each claim took.
async fn time_claims(driver: &Driver, claims: usize, batch: u32) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(claims);
    for _ in 0..claims {
        let begun = Instant::now();
        let claimed = driver.claim_once(JobKind::ProbeScenario).await?;
        times.push(begun.elapsed());
        ensure!(claimed.claims.len() == batch as usize, "{} jobs instead of {batch}", claimed.claims.len());
        driver.complete(claimed, Answer::Echo).await?;
    }
    Ok(times)
}
