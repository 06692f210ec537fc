//! The one PostgreSQL of the test process, and a fresh database for each test.
//!
//! `DATABASE_URL` names the server to use; without it, an embedded one is started once, and ends with the process.

use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, mpsc};

use runlane::config::Config;
use runlane::embedded::{Cluster, Settings};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::sync::Mutex;

/// The URL of a new, empty database.
pub async fn empty_database() -> String {
    database_like("empty", async |_| {}).await
}

/// The URL of a new database, a copy of the template `template`, which `prepare` fills the first time: it gets the
/// template's URL and must have closed its connections when it returns. Later `prepare`s of that name do not run.
pub async fn database_like(template: &'static str, prepare: impl AsyncFnOnce(String)) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    // PostgreSQL copies no template that somebody is connected to, another copy included: one at a time.
    static TEMPLATES: Mutex<Option<HashSet<&'static str>>> = Mutex::const_new(None);

    let server = Server::shared();
    let mut templates = TEMPLATES.lock().await;
    let mut admin = PgConnection::connect_with(&server.options).await.expect("the test server answers");
    let source = format!("{PREFIX}{:016x}_{template}", server.run);
    if !templates.get_or_insert_default().contains(template) {
        // Left by a `prepare` that panicked.
        execute(&mut admin, &format!(r#"DROP DATABASE IF EXISTS "{source}" WITH (FORCE)"#)).await;
        execute(&mut admin, &format!(r#"CREATE DATABASE "{source}" TEMPLATE template0"#)).await;
        prepare(server.url(&source)).await;
        templates.get_or_insert_default().insert(template);
    }
    let name = format!("{PREFIX}{:016x}_{}", server.run, MADE.fetch_add(1, Ordering::Relaxed));
    execute(&mut admin, &format!(r#"CREATE DATABASE "{name}" TEMPLATE "{source}""#)).await;
    admin.close().await.expect("the admin connection closes");
    server.url(&name)
}

/// All databases of tests begin so; then follow the run's key (16 hexadecimal digits) and a name.
const PREFIX: &str = "runlane_test_";

struct Server {
    /// Connects to the database that the server is administered from.
    options: PgConnectOptions,
    /// Tells this test process's databases from others'; its session holds the advisory lock of that number.
    run: i64,
}

impl Server {
    fn shared() -> &'static Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        SERVER.get_or_init(|| {
            let (sender, receiver) = mpsc::channel();
            // Tests have runtimes of their own that end with them. The server's must outlive them all: it reaps the
            // server and holds the session that shows that this run is alive.
            std::thread::Builder::new()
                .name("postgres".into())
                .spawn(move || keep(&sender))
                .expect("the operating system starts a thread");
            receiver.recv().expect("the test server starts: its thread has said why not")
        })
    }

    fn url(&self, database: &str) -> String {
        self.options.clone().database(database).to_url_lossy().into()
    }
}

/// Starts the server, tells `ready` and lives as long as the process.
fn keep(ready: &mpsc::Sender<Server>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let given = std::env::var("DATABASE_URL").ok().filter(|url| !url.is_empty());
        let mut cluster = None;
        let url = match given {
            Some(url) => url,
            None => {
                let dir = own_dir();
                sweep_afterwards(&dir);
                let started = Cluster::start(&settings(dir)).await.unwrap_or_else(|error| panic!("{error}"));
                cluster.insert(started).url().to_owned()
            }
        };
        let options = PgConnectOptions::from_str(&url).expect("DATABASE_URL is a PostgreSQL URL");
        let mut session = PgConnection::connect_with(&options).await.expect("the test server answers");
        let run = i64::from_ne_bytes(fresh_key());
        let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(run)
            .fetch_one(&mut session)
            .await
            .expect("an advisory lock");
        assert!(locked, "no other run has this key");
        drop_leftovers(&mut session, run).await;
        ready.send(Server { options, run }).expect("the first test waits for the server");
        std::future::pending::<()>().await;
        drop((session, cluster));
    });
}

/// The random end of a UUIDv7.
fn fresh_key() -> [u8; 8] {
    let id = runlane::domain::ids::new_id();
    id.as_bytes()[8..].try_into().expect("a UUID has 16 bytes")
}

/// Drops the databases of runs whose session has ended.
async fn drop_leftovers(session: &mut PgConnection, run: i64) {
    let names: Vec<String> =
        sqlx::query_scalar("SELECT datname FROM pg_database WHERE starts_with(datname, $1)")
            .bind(PREFIX)
            .fetch_all(&mut *session)
            .await
            .expect("the list of databases");
    for name in names {
        let key = name.get(PREFIX.len()..PREFIX.len() + 16).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let Some(key) = key.map(u64::cast_signed).filter(|&key| key != run) else { continue };
        let dead: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
            .bind(key)
            .fetch_one(&mut *session)
            .await
            .expect("an advisory lock");
        if dead {
            execute(session, &format!(r#"DROP DATABASE IF EXISTS "{name}" WITH (FORCE)"#)).await;
            execute(session, &format!("SELECT pg_advisory_unlock({key})")).await;
        }
    }
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    connection
        .execute(sqlx::AssertSqlSafe(sql))
        .await
        .unwrap_or_else(|error| panic!("the test server refuses {sql}: {error}"));
}

/// The settings of the shared server.
fn settings(data_dir: PathBuf) -> Settings {
    let mut settings = throw_away_in(data_dir);
    let options = [("max_connections", "500"), ("shared_buffers", "128MB"), ("max_wal_size", "256MB")];
    settings.options.extend(options.map(|(name, value)| (name.to_owned(), value.to_owned())));
    settings
}

/// [`settings_in`] for a cluster that need not survive a power cut; a killed process it does survive.
pub fn throw_away_in(data_dir: PathBuf) -> Settings {
    let mut settings = settings_in(data_dir);
    // Shared memory in the cluster's own files goes when they go, though its server was killed.
    let options = [("fsync", "off"), ("dynamic_shared_memory_type", "mmap")];
    settings.options.extend(options.map(|(name, value)| (name.to_owned(), value.to_owned())));
    settings
}

/// The default settings for the cluster of `data_dir`, with the programs that the environment chooses.
pub fn settings_in(data_dir: PathBuf) -> Settings {
    let lookup = |name: &str| {
        (name.starts_with("RUNLANE_POSTGRES_") || name == "RUNLANE_PYTHON")
            .then(|| std::env::var(name).ok())
            .flatten()
    };
    let config = Config::from_lookup(&lookup).unwrap_or_else(|error| panic!("{error}"));
    Settings { data_dir, ..Settings::from_config(&config) }
}

/// Where short-lived clusters live: in memory if there is room and programs may run from there, for making a database
/// is making 300 files; else the temporary directory.
pub fn scratch() -> PathBuf {
    const ROOM_BYTES: u128 = 4 << 30;
    let memory = PathBuf::from("/dev/shm");
    let fits = nix::sys::statvfs::statvfs(&memory).is_ok_and(|fs| {
        u128::from(fs.blocks_available()) * u128::from(fs.fragment_size()) >= ROOM_BYTES
            && !fs.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC)
    });
    if fits && nix::unistd::access(&memory, nix::unistd::AccessFlags::W_OK).is_ok() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// Removes `dir` when this process has ended, however it ends, and the server after it.
fn sweep_afterwards(dir: &Path) {
    // The shell's input ends with us; then the server has 20 seconds to shut down.
    let script = r#"cat; for i in $(seq 200); do [ -e "$1/postgres/postmaster.pid" ] || break; sleep 0.1; done; rm -rf "$1""#;
    let sweeper = std::process::Command::new("/bin/sh")
        .args(["-c", script, "sweeper"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a shell starts");
    // Its input stays open as long as we live.
    std::mem::forget(sweeper);
}

/// A directory of this process, which the server's user can reach when we are root. Those of processes that have ended
/// are removed, should their sweepers have failed.
fn own_dir() -> PathBuf {
    let open = |path: PathBuf| {
        File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("{path:?}: {error}"))
    };
    let root = scratch().join(format!("runlane-tests-{}", nix::unistd::geteuid()));
    let make = |dir: &PathBuf| DirBuilder::new().recursive(true).mode(0o711).create(dir);
    make(&root).expect("the temporary directory can be written");
    let gate = open(root.join("gate"));
    gate.lock().expect("the gate can be locked");
    for entry in std::fs::read_dir(&root).expect("our directory can be listed") {
        let dir = entry.expect("our directory can be listed").path();
        if dir.is_dir() && open(dir.join("alive")).try_lock().is_ok() {
            // Its server may still be shutting down and write the last of its files; the next run removes those.
            drop(std::fs::remove_dir_all(&dir));
        }
    }
    let own = root.join(std::process::id().to_string());
    make(&own).expect("our directory can be written");
    let alive = open(own.join("alive"));
    alive.lock().expect("a new file can be locked");
    // Open, and so locked, as long as the process lives.
    std::mem::forget(alive);
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_are_fresh_though_made_in_parallel() {
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async {
                let url = database_like("with_a_table", async |url| {
                    let mut connection = PgConnection::connect(&url).await.unwrap();
                    connection.execute("CREATE TABLE t (n int)").await.unwrap();
                    connection.close().await.unwrap();
                })
                .await;
                let mut connection = PgConnection::connect(&url).await.unwrap();
                connection.execute("INSERT INTO t VALUES (1)").await.unwrap();
                let rows: i64 =
                    sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(&mut connection).await.unwrap();
                assert_eq!(rows, 1);
                url
            })
        })
        .collect();
    let mut urls = HashSet::new();
    for task in tasks {
        urls.insert(task.await.unwrap());
    }
    assert_eq!(urls.len(), 8);
}

#[tokio::test]
async fn an_empty_database_has_no_tables() {
    let mut connection = PgConnection::connect(&empty_database().await).await.unwrap();
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(tables, 0);
}
