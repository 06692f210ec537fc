//! What is spent, what may be, and who may use which provider.

use rust_decimal::Decimal;

use super::control::{lock_gate, wake};
use super::transaction::in_transaction;
use super::{Result, Store};
use crate::domain::Role;
use crate::domain::spend::{Account, ProviderRoles, Spend};

impl Store {
    /// What was spent of an account in the present period.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn spend(&self, account: Account) -> Result<Spend> {
        let row = sqlx::query!(
            r#"select o.spent as "spent!", o.reserved as "reserved!", o.from_at as "from_at!", o.until_at as "until_at!",
                      (select s.usd from spend_limit s where s.scope = $1 and s.key = $2 and s.period = $3) as limit_usd
                 from spend_of($1, $2, $3, clock_timestamp()) as o"#,
            account.scope.as_str(),
            account.key,
            account.period.as_str()
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Spend {
            account,
            limit_usd: row.limit_usd,
            spent_usd: row.spent,
            reserved_usd: row.reserved,
            from: row.from_at,
            until: row.until_at,
        })
    }

    /// The limits that concern the runs of this user, the one of which least is left first; all without a user.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn spend_limits(&self, of: Option<(&str, Option<&str>)>) -> Result<Vec<Spend>> {
        let rows = sqlx::query!(
            r#"select m.scope as "scope!", m.key as "key!", m.period as "period!", m.usd as "usd!", m.spent as "spent!",
                      m.reserved as "reserved!", m.until_at as "until_at!", p.from_at as "from_at!"
                 from spend_rooms(clock_timestamp()) as m
                cross join lateral spend_period(m.period, clock_timestamp()) as p
                where not $1 or spend_covers(m.scope, m.key, $2, $3)
                order by m.remains, m.scope, m.key, m.period"#,
            of.is_some(),
            of.map(|(user, _)| user),
            of.and_then(|(_, group)| group)
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|r| {
                Ok(Spend {
                    account: Account { scope: r.scope.parse()?, key: r.key, period: r.period.parse()? },
                    limit_usd: Some(r.usd),
                    spent_usd: r.spent,
                    reserved_usd: r.reserved,
                    from: r.from_at,
                    until: r.until_at,
                })
            })
            .collect()
    }

    /// Sets what may be spent of an account in a period, or lifts the limit. When it has returned, every claim knows.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_spend_limit(&self, account: &Account, usd: Option<Decimal>, by: &str) -> Result<()> {
        let (account, by) = (account.clone(), by.to_owned());
        in_transaction(self, move |c| {
            let (account, by) = (account.clone(), by.clone());
            Box::pin(async move {
                lock_gate(c).await?;
                let (scope, period) = (account.scope.as_str(), account.period.as_str());
                let before = sqlx::query_scalar!(
                    "select usd from spend_limit where scope = $1 and key = $2 and period = $3 for update",
                    scope,
                    account.key,
                    period
                )
                .fetch_optional(&mut *c)
                .await?;
                match usd {
                    Some(usd) => {
                        sqlx::query!(
                            "insert into spend_limit (scope, key, period, usd, set_by) values ($1, $2, $3, $4, $5)
                             on conflict (scope, key, period) do update
                                set usd = excluded.usd, set_by = excluded.set_by, set_at = clock_timestamp()",
                            scope,
                            account.key,
                            period,
                            usd,
                            by
                        )
                        .execute(&mut *c)
                        .await?;
                    }
                    None => {
                        sqlx::query!(
                            "delete from spend_limit where scope = $1 and key = $2 and period = $3",
                            scope,
                            account.key,
                            period
                        )
                        .execute(&mut *c)
                        .await?;
                    }
                }
                sqlx::query!(
                    "select record_change('setSpendLimit', 'spend_limit', concat_ws(' ', $1::text, nullif($2::text, ''), $3::text), null,
                                          jsonb_build_object('usd', $4::numeric), jsonb_build_object('usd', $5::numeric))",
                    scope,
                    account.key,
                    period,
                    before,
                    usd
                )
                .fetch_one(&mut *c)
                .await?;
                wake(c).await
            })
        })
        .await
    }

    /// The providers that not all roles may use.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn provider_roles(&self) -> Result<Vec<ProviderRoles>> {
        let rows = sqlx::query!("select provider, roles from provider_role order by provider")
            .fetch_all(&self.pool)
            .await?;
        rows.into_iter()
            .map(|r| {
                let roles = r.roles.iter().map(|role| role.parse()).collect::<std::result::Result<_, _>>()?;
                Ok(ProviderRoles { provider: r.provider, roles: Some(roles) })
            })
            .collect()
    }

    /// Says which roles may start runs with a provider; `None`: all.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn set_provider_roles(&self, provider: &str, roles: Option<&[Role]>, by: &str) -> Result<()> {
        let (provider, by) = (provider.to_owned(), by.to_owned());
        let roles: Option<Vec<String>> = roles.map(|all| all.iter().map(|r| r.as_str().to_owned()).collect());
        in_transaction(self, move |c| {
            let (provider, roles, by) = (provider.clone(), roles.clone(), by.clone());
            Box::pin(async move {
                let before =
                    sqlx::query_scalar!("select roles from provider_role where provider = $1 for update", provider)
                        .fetch_optional(&mut *c)
                        .await?;
                match &roles {
                    Some(roles) => {
                        sqlx::query!(
                            "insert into provider_role (provider, roles, set_by) values ($1, $2, $3)
                             on conflict (provider) do update
                                set roles = excluded.roles, set_by = excluded.set_by, set_at = clock_timestamp()",
                            provider,
                            roles,
                            by
                        )
                        .execute(&mut *c)
                        .await?;
                    }
                    None => {
                        sqlx::query!("delete from provider_role where provider = $1", provider)
                            .execute(&mut *c)
                            .await?;
                    }
                }
                sqlx::query!(
                    "select record_change('setProviderRoles', 'provider', $1, null,
                                          jsonb_build_object('roles', $2::text[]), jsonb_build_object('roles', $3::text[]))",
                    provider,
                    before.as_deref(),
                    roles.as_deref()
                )
                .fetch_one(&mut *c)
                .await?;
                Ok(())
            })
        })
        .await
    }
}
