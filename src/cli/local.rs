//! Everything on this machine: the embedded PostgreSQL unless `DATABASE_URL` names one, a secret of its own, one node.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rand::RngExt;
use secrecy::SecretString;

use super::run::Signals;
use crate::app::{App, Roles};
use crate::config::{Config, JWT_SECRET_MIN_BYTES};
use crate::domain::clock::Clock;
use crate::embedded::{Cluster, Settings};

/// A node and, perhaps, its PostgreSQL.
pub struct Local {
    /// The node.
    pub app: App,
    /// The configuration that it runs with.
    pub config: Arc<Config>,
    cluster: Option<Cluster>,
}

impl Local {
    /// Starts everything.
    ///
    /// # Errors
    /// What is missing, for people.
    pub async fn start(mut config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        check_python(&config.python)?;
        let cluster = match config.database_url {
            Some(_) => None,
            None => {
                let cluster = Cluster::start(&Settings::from_config(&config)).await?;
                config.database_url = Some(SecretString::from(cluster.url()));
                Some(cluster)
            }
        };
        if config.jwt_secret.is_none() {
            config.jwt_secret = Some(own_secret(&config.data_dir)?);
        }
        config.execute = true;
        let config = Arc::new(config);
        match App::start(Arc::clone(&config), Roles { serves: true, executes: true }, clock).await {
            Ok(app) => Ok(Self { app, config, cluster }),
            Err(error) => {
                if let Some(cluster) = cluster {
                    cluster.stop().await?;
                }
                Err(error.into())
            }
        }
    }

    /// Waits until a signal has stopped the node, and then stops PostgreSQL.
    ///
    /// # Errors
    /// When PostgreSQL does not stop as it should.
    pub async fn obeys(self, signals: Signals) -> anyhow::Result<()> {
        signals.obeyed_by(self.app).await;
        stopped(self.cluster).await
    }

    /// Stops the node and PostgreSQL now.
    ///
    /// # Errors
    /// As [`Local::obeys`].
    pub async fn stop(self) -> anyhow::Result<()> {
        self.app.begin_shutdown();
        self.app.hurry();
        self.app.stopped().await;
        stopped(self.cluster).await
    }
}

async fn stopped(cluster: Option<Cluster>) -> anyhow::Result<()> {
    if let Some(cluster) = cluster {
        cluster.stop().await?;
    }
    Ok(())
}

fn check_python(python: &Path) -> anyhow::Result<()> {
    let found = if python.components().count() == 1 {
        std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(python).is_file()))
    } else {
        python.is_file()
    };
    anyhow::ensure!(
        found,
        "{} (RUNLANE_PYTHON) is missing: run `make python`, or give a Python that has runlane_worker installed",
        python.display()
    );
    Ok(())
}

/// The secret of this data directory; made the first time, readable by its owner only, so that tokens stay good.
fn own_secret(data_dir: &Path) -> anyhow::Result<SecretString> {
    let path = data_dir.join("jwt-secret");
    std::fs::create_dir_all(data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let bytes: [u8; JWT_SECRET_MIN_BYTES] = rand::rngs::ThreadRng::default().random();
            file.write_all(hex::encode(bytes).as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot make {}", path.display())),
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(
        text.trim().len() >= JWT_SECRET_MIN_BYTES,
        "{} is damaged: remove it, a new one will be made",
        path.display()
    );
    Ok(SecretString::from(text.trim().to_owned()))
}
