//! Leadership: for each duty one node at a time, by an advisory lock on a session of its own and an epoch that fences
//! what the leader writes.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, PgPool};
use tokio::time::timeout;
use uuid::Uuid;

use super::connections::unanswered;
use super::{Error, Result, Store};
use crate::domain::leader::{Duty, Term};

/// A session that leads. Dropping it ends the session, and with it the leadership.
#[derive(Debug)]
pub struct Leadership {
    session: PgConnection,
    term: Term,
}

impl Store {
    /// Whether there is something to win: nobody leads in this duty. Ends the session of a leader whose node is gone.
    ///
    /// # Errors
    /// The database's.
    pub async fn leadership_is_free(&self, duty: Duty, node: Uuid) -> Result<bool> {
        Ok(sqlx::query_scalar!(r#"select leadership_is_free($1, $2) as "free!""#, duty.as_str(), node)
            .fetch_one(&self.pool)
            .await?)
    }

    /// Becomes the leader in this duty, with the next epoch; none while somebody else leads.
    ///
    /// # Errors
    /// The database's.
    pub async fn take_leadership(&self, duty: Duty, node: Uuid) -> Result<Option<Leadership>> {
        let limit = self.pool.patience.answer;
        let taking = async {
            let mut session = open(self.pool()).await?;
            let epoch =
                sqlx::query_scalar!(r#"select take_leadership($1, $2) as epoch"#, duty.as_str(), node)
                    .fetch_one(&mut session)
                    .await?;
            Ok(epoch.map(|epoch| Leadership { session, term: Term { duty, epoch } }))
        };
        timeout(limit, taking).await.unwrap_or_else(|_| Err(unanswered(limit).into()))
    }
}

impl Leadership {
    /// What the leader's writes name.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }

    /// Asks the session for a sign of life, and whether the term is still the latest.
    ///
    /// # Errors
    /// [`Error::Deposed`] when another epoch has begun; the database's when the session is gone, and the leadership
    /// with it.
    pub async fn check(&mut self) -> Result<()> {
        sqlx::query!("select assert_leader($1, $2)", self.term.duty.as_str(), self.term.epoch)
            .fetch_one(&mut self.session)
            .await?;
        Ok(())
    }

    /// Makes room for the next leader.
    ///
    /// # Errors
    /// The database's; the leadership has ended all the same.
    pub async fn resign(self) -> Result<()> {
        Ok(self.session.close().await?)
    }
}

/// Begins a leader's transaction: fails unless the term is the latest, and holds successors off until the commit.
///
/// For transactions of several statements. Functions in the database that take duty and epoch begin so themselves.
///
/// # Errors
/// [`Error::Deposed`]; the database's.
pub(super) async fn assert_leader(c: &mut PgConnection, term: Term) -> Result<()> {
    sqlx::query!("select assert_leader($1, $2)", term.duty.as_str(), term.epoch).fetch_one(c).await?;
    Ok(())
}

async fn open(pool: &PgPool) -> Result<PgConnection> {
    let options = pool.connect_options().as_ref().clone().application_name("runlane leader");
    PgConnection::connect_with(&options).await.map_err(Error::from)
}
