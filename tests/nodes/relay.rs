//! The way from a node to the database, which a test can close, cut or make deaf.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::sockets;

/// Passes connections on to the database of a URL.
pub struct Relay {
    address: SocketAddr,
    options: PgConnectOptions,
    open: Option<Open>,
}

/// While connections are taken.
struct Open {
    /// Cancelled: the listener and every connection are closed.
    closed: CancellationToken,
    /// Cancelled: every connection is closed.
    cut: watch::Sender<CancellationToken>,
    /// Nothing is passed on while this is true.
    is_deaf: watch::Sender<bool>,
    tasks: TaskTracker,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Relay {
    /// A relay to the database of this URL, open.
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut relay = Self { address, options: PgConnectOptions::from_str(url).unwrap(), open: None };
        relay.listen(listener);
        relay
    }

    /// The URL of the same database by way of this relay.
    pub fn url(&self) -> String {
        let (user, database) = (self.options.get_username(), self.options.get_database().unwrap());
        format!("postgres://{user}@{}/{database}?sslmode=disable", self.address)
    }

    /// Closes everything: from now on connections are refused.
    pub async fn refuse(&mut self) {
        let open = self.open.take().expect("it is open");
        open.closed.cancel();
        open.tasks.close();
        open.tasks.wait().await;
    }

    /// Takes connections again, at the same address.
    pub async fn reopen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener);
    }

    /// Breaks every connection once; new ones are taken.
    pub fn cut(&self) {
        let open = self.open.as_ref().expect("it is open");
        open.cut.send_replace(open.closed.child_token()).cancel();
    }

    /// Passes nothing on any more, and takes connections to leave them without an answer.
    pub fn go_deaf(&self) {
        self.open.as_ref().expect("it is open").is_deaf.send_replace(true);
    }

    /// Passes on again what comes.
    pub fn hear_again(&self) {
        self.open.as_ref().expect("it is open").is_deaf.send_replace(false);
    }

    fn listen(&mut self, listener: TcpListener) {
        let closed = CancellationToken::new();
        let open = Open {
            cut: watch::Sender::new(closed.child_token()),
            is_deaf: watch::Sender::new(false),
            tasks: TaskTracker::new(),
            closed: closed.clone(),
        };
        let (cut, is_deaf, tasks) = (open.cut.subscribe(), open.is_deaf.subscribe(), open.tasks.clone());
        let options = self.options.clone();
        open.tasks.spawn(async move {
            loop {
                let client = tokio::select! {
                    client = listener.accept() => client.unwrap().0,
                    () = closed.cancelled() => return sockets::close(listener),
                };
                let end = cut.borrow().clone();
                tasks.spawn(pass(client, options.clone(), end, is_deaf.clone()));
            }
        });
        self.open = Some(open);
    }
}

async fn pass(
    mut client: TcpStream,
    options: PgConnectOptions,
    end: CancellationToken,
    mut is_deaf: watch::Receiver<bool>,
) {
    let mut server = reach(&options).await;
    loop {
        // The relay may be gone, and nobody deaf any more.
        let deaf = is_deaf.wait_for(|deaf| *deaf);
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => return,
            () = end.cancelled() => return,
            Ok(_) = deaf => {}
        }
        tokio::select! {
            _ = is_deaf.wait_for(|deaf| !*deaf) => {}
            () = end.cancelled() => return,
        }
    }
}

async fn reach(options: &PgConnectOptions) -> Box<dyn Stream> {
    let socket: Option<PathBuf> = options
        .get_socket()
        .cloned()
        .or_else(|| options.get_host().starts_with('/').then(|| PathBuf::from(options.get_host())));
    match socket {
        Some(folder) => {
            let path = folder.join(format!(".s.PGSQL.{}", options.get_port()));
            Box::new(UnixStream::connect(path).await.unwrap())
        }
        None => Box::new(TcpStream::connect((options.get_host(), options.get_port())).await.unwrap()),
    }
}
