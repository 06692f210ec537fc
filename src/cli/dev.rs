//! `runlane dev`: everything on this machine, until interrupted.

use std::sync::Arc;
use std::time::Duration;

use super::local::Local;
use super::run::Signals;
use crate::app::authority;
use crate::config::Config;
use crate::domain::Role;
use crate::domain::clock::Clock;

/// How long the printed token is good.
const TOKEN_TTL: Duration = Duration::from_secs(7 * 86_400);

/// Serves until interrupted.
///
/// # Errors
/// What is missing, for people.
pub async fn serve(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let start = Local::start(config, Arc::clone(&clock));
    let Some(local) = signals.unless_stopped(start).await? else { return Ok(()) };
    let token = authority(&local.config, clock)?.issue("dev", Role::Admin, TOKEN_TTL)?;
    if let Some(address) = local.app.address {
        println!(
            "
Runlane serves on http://{address}

  GraphiQL, with the token filled in:
    http://{address}/graphql#token={token}

  An admin token, good for 7 days:
    {token}

  A first query:
    curl -s http://{address}/graphql -H 'Authorization: Bearer {token}' \\
      -H 'Content-Type: application/json' -d '{{\"query\": \"{{ queueStatus {{ isPaused totalPending }} }}\"}}'

Ctrl-C stops it; running jobs may finish, and a second Ctrl-C gives them back.
"
        );
    }
    local.obeys(signals).await
}
