//! Limits on providers and models.

use std::sync::Arc;

use sqlx::PgConnection;

use super::control::wake;
use super::transaction::in_transaction;
use super::{Result, Store};
use crate::domain::rate_limit::{Ceilings, ProviderHold, RateLimit};

/// Who sets what the configuration declares.
const CONFIGURATION: &str = "configuration";

impl Store {
    /// All limits, or that of this name, by name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn rate_limits(&self, name: Option<&str>) -> Result<Vec<RateLimit>> {
        let rows = sqlx::query!(
            r#"select r.name, r.in_flight_max, r.requests_per_minute, r.tokens_per_minute, r.set_by, r.set_at,
                      floor(r.concurrency)::bigint as bearable, r.held_at, r.hold_code, r.hold_reason,
                      case when r.held_until > clock_timestamp() then r.held_until end as held_until,
                      coalesce(a.n, 0) as "in_flight!", coalesce(g.requests, 0) as "requests!",
                      coalesce(g.tokens, 0)::bigint as "tokens!"
                 from rate_limit r
                cross join lateral (
                    select sum(l.active) as n from lane l
                     where l.is_live and l.kind = 'probe:scenario' and r.name in (l.model, provider_of(l.model))
                ) as a
                cross join lateral (
                    select sum(g.requests) as requests, sum(g.tokens) as tokens from rate_grant g
                     where g.limit_id = r.id and g.second > clock_timestamp() - interval '60 seconds'
                ) as g
                where $1::text is null or r.name = $1
                order by r.name"#,
            name
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|r| RateLimit {
                name: r.name,
                ceilings: Ceilings {
                    in_flight: r.in_flight_max,
                    requests_per_minute: r.requests_per_minute,
                    tokens_per_minute: r.tokens_per_minute,
                },
                set: r.set_by.zip(r.set_at),
                in_flight: r.in_flight,
                bearable: r.bearable,
                requests: r.requests,
                tokens: r.tokens,
                held_until: r.held_until,
                hold: r
                    .held_at
                    .zip(r.hold_code)
                    .zip(r.hold_reason)
                    .map(|((since, code), reason)| ProviderHold { since, code, reason }),
            })
            .collect())
    }

    /// Sets the ceilings of a limit, in the name of `by`. In force on every node when it has returned.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_rate_limit(&self, name: &str, ceilings: Ceilings, by: &str) -> Result<()> {
        let (name, by) = (name.to_owned(), by.to_owned());
        in_transaction(self, move |c| {
            let (name, by) = (name.clone(), by.clone());
            Box::pin(async move {
                set(c, &name, ceilings, &by).await?;
                wake(c).await
            })
        })
        .await
    }

    /// Sets the ceilings that the configuration declares, save where a person has set others since.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn declare_rate_limits(&self, limits: &[(String, Ceilings)]) -> Result<()> {
        if limits.is_empty() {
            return Ok(());
        }
        let limits = Arc::new(limits.to_vec());
        in_transaction(self, move |c| {
            let limits = Arc::clone(&limits);
            Box::pin(async move {
                for (name, ceilings) in limits.iter() {
                    let row = sqlx::query!(
                        r#"select set_by, in_flight_max, requests_per_minute, tokens_per_minute
                             from rate_limit where name = $1"#,
                        name
                    )
                    .fetch_optional(&mut *c)
                    .await?;
                    let is_settled = row.is_some_and(|r| {
                        let now = Ceilings {
                            in_flight: r.in_flight_max,
                            requests_per_minute: r.requests_per_minute,
                            tokens_per_minute: r.tokens_per_minute,
                        };
                        r.set_by.is_some_and(|by| by != CONFIGURATION || now == *ceilings)
                    });
                    if !is_settled {
                        set(c, name, *ceilings, CONFIGURATION).await?;
                    }
                }
                wake(c).await
            })
        })
        .await
    }

    /// Forgets that the provider asked to wait or refused, and lets its jobs start. `None`: there is no such limit;
    /// `Some(false)`: nothing held it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn release_rate_limit(&self, name: &str) -> Result<Option<bool>> {
        let name = name.to_owned();
        in_transaction(self, move |c| {
            let name = name.clone();
            Box::pin(async move {
                let Some(row) = sqlx::query!(
                    r#"select id, held_at is not null or held_until > clock_timestamp() or concurrency is not null
                              as "is_held!", hold_code
                         from rate_limit where name = $1 for update"#,
                    name
                )
                .fetch_optional(&mut *c)
                .await?
                else {
                    return Ok(None);
                };
                if row.is_held {
                    sqlx::query!(
                        "update rate_limit
                            set held_at = null, hold_code = null, hold_reason = null, held_until = null,
                                concurrency = null, slowed_at = null
                          where id = $1",
                        row.id
                    )
                    .execute(&mut *c)
                    .await?;
                    sqlx::query!(
                        "select record_act('releaseLimit', 'limit', $1, null,
                                           jsonb_build_object('isHeld', true, 'code', $2::text),
                                           jsonb_build_object('isHeld', false))",
                        name,
                        row.hold_code
                    )
                    .fetch_one(&mut *c)
                    .await?;
                    wake(c).await?;
                }
                Ok(Some(row.is_held))
            })
        })
        .await
    }
}

async fn set(c: &mut PgConnection, name: &str, ceilings: Ceilings, by: &str) -> Result<()> {
    let before = sqlx::query!(
        "select in_flight_max, requests_per_minute, tokens_per_minute from rate_limit where name = $1 for update",
        name
    )
    .fetch_optional(&mut *c)
    .await?;
    // A new ceiling begins with an empty bucket: nothing is granted at once that an older one has granted already.
    sqlx::query!(
        "insert into rate_limit as r (name, in_flight_max, requests_per_minute, tokens_per_minute, set_by, set_at)
         values ($1, $2, $3, $4, $5, clock_timestamp())
         on conflict on constraint rate_limit_name do update
            set in_flight_max = excluded.in_flight_max, requests_per_minute = excluded.requests_per_minute,
                tokens_per_minute = excluded.tokens_per_minute, set_by = excluded.set_by, set_at = excluded.set_at,
                concurrency = case when r.concurrency < excluded.in_flight_max then r.concurrency end,
                requests_left = least(1, r.requests_left), tokens_left = least(1, r.tokens_left),
                filled_at = clock_timestamp()",
        name,
        ceilings.in_flight,
        ceilings.requests_per_minute,
        ceilings.tokens_per_minute,
        by
    )
    .execute(&mut *c)
    .await?;
    let facts = |c: Ceilings| serde_json::Value::from_iter(c.named().map(|(k, v)| (k, v)));
    let before = before.map(|r| {
        facts(Ceilings {
            in_flight: r.in_flight_max,
            requests_per_minute: r.requests_per_minute,
            tokens_per_minute: r.tokens_per_minute,
        })
    });
    sqlx::query!("select record_act('setLimit', 'limit', $1, null, $2, $3)", name, before, facts(ceilings))
        .fetch_one(c)
        .await?;
    Ok(())
}
