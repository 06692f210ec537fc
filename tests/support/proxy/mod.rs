//! A network that fails on purpose: a real TCP proxy between Runlane and PostgreSQL.
//!
//! It can cut, reset or mute a connection exactly at a statement or at the commit that makes it last, before it has
//! reached the server or after the server has answered ([`Strike`]); and it can be slow, narrow or a black hole for all
//! ([`Weather`]). What is random comes from a seed, which it prints.
//!
//! ```ignore
//! let proxy = Proxy::before(&url).await;            // or Proxy::seeded(&url, seed)
//! let lost = proxy.strike(Strike::at(Point::Commit(work::CLAIM)).after(Harm::Cut).times(20));
//! … DATABASE_URL = proxy.url() …
//! lost.struck(20).await;                             // 20 claims have committed, and nobody heard of it
//! proxy.weather(Weather { latency: ms(300), jitter: ms(200), ..Weather::FAIR });
//! proxy.harm_all(Harm::Reset);                       // every connection there is, now
//! ```

mod link;
mod wire;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::sockets;
use wire::Request;

/// What the program's statements are known by; a [`Strike`] that names nothing the program says never strikes, so wait
/// for it or count it.
pub mod work {
    /// A node claims.
    pub const CLAIM: &str = "call claim_with_scenarios(";
    /// A node puts the ends of attempts on record.
    pub const END: &str = "from end_attempts(";
    /// The jobs of dead nodes go back to the queue.
    pub const RESCUE: &str = "from rescue_jobs(";
    /// A node renews its lease.
    pub const HEARTBEAT: &str = "set lease_until = clock_timestamp()";
    /// `startRun`.
    pub const START: &str = "start_run(";
    /// `pauseRun` and `resumeRun`.
    pub const PAUSE: &str = "update lane set is_paused";
    /// `cancelRun`.
    pub const CANCEL: &str = "set status = 'CANCELLED'";
    /// `setRunPriority`.
    pub const PRIORITY: &str = "update lane set priority";
    /// `retryFailedJobs`.
    pub const RETRY: &str = "from retry_failed_probes(";
    /// `pauseQueue` and `resumeQueue`.
    pub const QUEUE: &str = "update queue_state";
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Both ends are closed.
    Cut,
    /// The client's end is reset, the server's closed.
    Reset,
    /// Nothing passes any more, either way, and neither end hears of it.
    Mute,
}

/// Which request of a client is meant, by a part of a statement's text; an empty part means any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The one that runs such a statement.
    Statement(&'static str),
    /// The one that commits such a statement: the statement itself outside of transactions, else its COMMIT.
    Commit(&'static str),
}

impl Point {
    fn is_met(self, request: &Request) -> bool {
        let (part, among) = match self {
            Self::Statement(part) => (part, &request.runs),
            Self::Commit(part) => (part, &request.commits),
        };
        among.iter().any(|sql| sql.contains(part))
    }
}

/// When the harm comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The server hears nothing of the request.
    Before,
    /// At once when the request is on its way to the server: whether it is carried out nobody knows.
    During,
    /// When the server has carried the request out and answered; the client hears nothing of it.
    After,
}

/// Harm that comes at one point. By default before the request, once.
#[derive(Debug, Clone, Copy)]
pub struct Strike {
    point: Point,
    moment: Moment,
    harm: Harm,
    times: u32,
    chance: f64,
}

impl Strike {
    /// A cut before this request reaches the server, the first time that it comes.
    pub fn at(point: Point) -> Self {
        Self { point, moment: Moment::Before, harm: Harm::Cut, times: 1, chance: 1.0 }
    }

    /// The server hears nothing of the request.
    pub fn before(self, harm: Harm) -> Self {
        Self { moment: Moment::Before, harm, ..self }
    }

    /// The request is sent off, and that is all that is known.
    pub fn during(self, harm: Harm) -> Self {
        Self { moment: Moment::During, harm, ..self }
    }

    /// The server has answered; the answer is kept back.
    pub fn after(self, harm: Harm) -> Self {
        Self { moment: Moment::After, harm, ..self }
    }

    /// Whether nobody is told.
    pub fn is_silent(&self) -> bool {
        self.harm == Harm::Mute
    }

    /// So many times, instead of once.
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// At each such request only with this chance, 0 to 1.
    pub fn chance(self, chance: f64) -> Self {
        Self { chance, ..self }
    }
}

/// A strike in force.
pub struct Struck(watch::Receiver<u32>);

impl Struck {
    /// How often it has struck.
    pub fn count(&self) -> u32 {
        *self.0.borrow()
    }

    /// Waits until it has struck so often.
    pub async fn struck(&self, times: u32) {
        self.0.clone().wait_for(|&n| n >= times).await.expect("the proxy lives as long as the test waits");
    }
}

/// What every connection is exposed to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    /// Nothing passes, nobody is told; new connections are accepted and not answered. What was sent meanwhile passes when
    /// it is over.
    pub blackhole: bool,
    /// How long each message takes at least, each way.
    pub latency: Duration,
    /// How much longer at most.
    pub jitter: Duration,
    /// Bytes a second for each connection, each way.
    pub rate: Option<u32>,
}

impl Weather {
    /// Nothing is held up.
    pub const FAIR: Self =
        Self { blackhole: false, latency: Duration::ZERO, jitter: Duration::ZERO, rate: None };
}

/// Where the server is.
#[derive(Debug, Clone)]
enum Upstream {
    Socket(PathBuf),
    Tcp(String, u16),
}

struct InForce {
    strike: Strike,
    left: u32,
    struck: watch::Sender<u32>,
}

struct Shared {
    upstream: Mutex<Upstream>,
    strikes: Mutex<Vec<InForce>>,
    rng: Mutex<ChaCha8Rng>,
    weather: watch::Sender<Weather>,
    /// Each connection, and what is to become of it.
    links: Mutex<HashMap<u64, watch::Sender<Option<Harm>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The harm that comes at this request, if any.
    fn strike(&self, request: &Request) -> Option<(Moment, Harm)> {
        let mut strikes = lock(&self.strikes);
        let met = strikes.iter_mut().find(|s| {
            s.left > 0
                && s.strike.point.is_met(request)
                && (s.strike.chance >= 1.0 || lock(&self.rng).random_bool(s.strike.chance))
        })?;
        met.left -= 1;
        met.struck.send_modify(|n| *n += 1);
        Some((met.strike.moment, met.strike.harm))
    }

    /// Waits as long as the weather has `bytes` wait.
    async fn pass(&self, bytes: usize) {
        let mut seen = self.weather.subscribe();
        // The sender is ours.
        let weather = *seen.wait_for(|w| !w.blackhole).await.expect("the weather outlives what waits for it");
        let mut wait = weather.latency;
        if !weather.jitter.is_zero() {
            wait += weather.jitter.mul_f64(lock(&self.rng).random::<f64>());
        }
        if let Some(rate) = weather.rate {
            wait += Duration::from_secs_f64(bytes as f64 / f64::from(rate));
        }
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The proxy; its connections end with it. It lives on the runtime that made it.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    client: reqwest::Url,
    accepting: Mutex<Option<(CancellationToken, AbortHandle)>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Proxy {
    /// A proxy before the server of `url`, with a seed of its own.
    pub async fn before(url: &str) -> Self {
        Self::seeded(url, rand::rngs::ThreadRng::default().next_u64()).await
    }

    /// A proxy before the server of `url`. The seed decides what is random: chances and jitter.
    pub async fn seeded(url: &str, seed: u64) -> Self {
        println!("proxy seed={seed}");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let mut client = reqwest::Url::parse(url).expect("the database's URL");
        client.set_query(Some("sslmode=disable"));
        client.set_host(Some("127.0.0.1")).expect("such URLs have hosts");
        client.set_port(Some(address.port())).expect("such URLs have ports");
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream(url)),
            strikes: Mutex::default(),
            rng: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            weather: watch::Sender::new(Weather::FAIR),
            links: Mutex::default(),
        });
        let proxy = Self { shared, address, client, accepting: Mutex::default(), tasks: Mutex::default() };
        proxy.accept(listener);
        proxy
    }

    /// The database's URL by way of the proxy.
    pub fn url(&self) -> String {
        self.client.to_string()
    }

    /// Puts a strike in force. Of several that meet a request, the first put in force that has not been used up counts.
    pub fn strike(&self, strike: Strike) -> Struck {
        let struck = watch::Sender::new(0);
        let seen = Struck(struck.subscribe());
        lock(&self.shared.strikes).push(InForce { strike, left: strike.times, struck });
        seen
    }

    /// No strike is in force any more.
    pub fn calm(&self) {
        lock(&self.shared.strikes).iter_mut().for_each(|s| s.left = 0);
    }

    /// From now on.
    pub fn weather(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Harms every connection that there is.
    pub fn harm_all(&self, harm: Harm) {
        for fate in lock(&self.shared.links).values() {
            fate.send_replace(Some(harm));
        }
    }

    /// Connections that are there, muted ones included.
    pub fn connections(&self) -> usize {
        lock(&self.shared.links).len()
    }

    /// Refuses further connections, as a machine does on which no server runs.
    pub async fn refuse(&self) {
        let accepting = lock(&self.accepting).take();
        if let Some((refuses, task)) = accepting {
            refuses.cancel();
            // The port is free when the task is gone.
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes connections again after [`Proxy::refuse`], at the same address.
    pub async fn admit(&self) {
        let listener = TcpListener::bind(self.address).await.expect("our port is still free");
        self.accept(listener);
    }

    /// Sends further connections to another server, as a failover does. Those there are stay where they are.
    pub fn redirect(&self, url: &str) {
        *lock(&self.shared.upstream) = upstream(url);
    }

    fn accept(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let refuses = CancellationToken::new();
        let refused = refuses.clone();
        let accepting = lock(&self.tasks).spawn(async move {
            let mut next = 0_u64;
            loop {
                let (client, _) = tokio::select! {
                    accepted = listener.accept() => accepted.expect("a listening socket accepts"),
                    () = refused.cancelled() => return sockets::close(listener),
                };
                next += 1;
                // Links of earlier listeners are told apart by the port of their client.
                let id = next << 16 | client.peer_addr().map_or(0, |a| u64::from(a.port()));
                let (fate, told) = watch::channel(None);
                lock(&shared.links).insert(id, fate);
                let link = link::run(Arc::clone(&shared), client, told);
                let links = Arc::downgrade(&shared);
                tokio::spawn(async move {
                    link.await;
                    if let Some(shared) = links.upgrade() {
                        lock(&shared.links).remove(&id);
                    }
                });
            }
        });
        *lock(&self.accepting) = Some((refuses, accepting));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.harm_all(Harm::Cut);
    }
}

fn upstream(url: &str) -> Upstream {
    let options = PgConnectOptions::from_str(url).expect("the database's URL");
    match options.get_socket() {
        Some(directory) => Upstream::Socket(directory.join(format!(".s.PGSQL.{}", options.get_port()))),
        None => Upstream::Tcp(options.get_host().to_owned(), options.get_port()),
    }
}
