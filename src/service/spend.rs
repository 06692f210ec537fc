//! What may be spent, by whom, and with which providers.

use rust_decimal::Decimal;

use super::access::require_admin;
use super::money::JobCost;
use super::start::Prepared;
use super::{Error, Result, Service};
use crate::domain::guard::check_usd;
use crate::domain::provider::PROVIDERS;
use crate::domain::spend::{Account, FREE_PROVIDERS, ProviderRoles, Spend, SpendPeriod, SpendScope};
use crate::domain::validation::{Length, TextRule, shorten};
use crate::domain::{Checker, Requester, Role, ValidationErrors};
use crate::store::Conditions;

impl Service {
    /// What was spent of an account in the present period; none for what this person may not see: another user's or
    /// another group's, for a user.
    ///
    /// # Errors
    /// VALIDATION_ERROR for a key that does not fit the scope.
    pub async fn spend(
        &self,
        requester: &Requester,
        scope: SpendScope,
        key: Option<String>,
        period: SpendPeriod,
    ) -> Result<Option<Spend>> {
        let own = match scope {
            SpendScope::Installation => None,
            SpendScope::User => Some(requester.subject.clone()),
            SpendScope::Group => requester.group.clone(),
        };
        let account = self.account(scope, key.or_else(|| own.clone()), period)?;
        if requester.role == Role::User && (own.is_none() || own.as_ref() != Some(&account.key)) {
            return Ok(None);
        }
        self.store.spend(account).await.map(Some).map_err(|e| self.failed(e))
    }

    /// The limits that this person may see: a user those on its own runs.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn spend_limits(&self, requester: &Requester) -> Result<Vec<Spend>> {
        let own = (requester.subject.as_str(), requester.group.as_deref());
        let of = (requester.role == Role::User).then_some(own);
        self.store.spend_limits(of).await.map_err(|e| self.failed(e))
    }

    /// Limits what may be spent in a period, or lifts the limit.
    ///
    /// # Errors
    /// FORBIDDEN, VALIDATION_ERROR.
    pub async fn set_spend_limit(
        &self,
        requester: &Requester,
        scope: SpendScope,
        key: Option<String>,
        usd: Option<Decimal>,
        period: SpendPeriod,
    ) -> Result<Spend> {
        require_admin(requester)?;
        // Nothing at all is an amount here.
        if let Some(usd) = usd.filter(|usd| !usd.is_zero()) {
            let mut checker = Checker::new("", self.limits.mistakes_max);
            checker.within("usd", |c| check_usd(c, usd));
            checker.finish()?;
        }
        let account = self.account(scope, key, period)?;
        let store = self.store.acting_for(requester);
        store
            .set_spend_limit(&account, usd.map(|usd| usd.normalize()), &requester.subject)
            .await
            .map_err(|e| self.failed(e))?;
        tracing::warn!(?account, usd = ?usd, by = requester.subject, "spend limit set");
        self.store.spend(account).await.map_err(|e| self.failed(e))
    }

    /// The providers that not all roles may use.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn provider_roles(&self) -> Result<Vec<ProviderRoles>> {
        self.store.provider_roles().await.map_err(|e| self.failed(e))
    }

    /// Says which roles may start runs with a provider; without roles, all.
    ///
    /// # Errors
    /// FORBIDDEN, VALIDATION_ERROR for an unknown provider.
    pub async fn set_provider_roles(
        &self,
        requester: &Requester,
        provider: &str,
        roles: Option<Vec<Role>>,
    ) -> Result<ProviderRoles> {
        require_admin(requester)?;
        if !PROVIDERS.iter().any(|p| p.name == provider) {
            let names: Vec<&str> = PROVIDERS.iter().map(|p| p.name).collect();
            let message = format!("{} is no provider: give one of {}", shorten(provider), names.join(", "));
            return Err(ValidationErrors::one("provider", message).into());
        }
        let roles = roles.map(|mut roles| {
            roles.sort_unstable_by_key(|r| r.as_str());
            roles.dedup();
            roles
        });
        let store = self.store.acting_for(requester);
        store
            .set_provider_roles(provider, roles.as_deref(), &requester.subject)
            .await
            .map_err(|e| self.failed(e))?;
        tracing::warn!(provider, ?roles, by = requester.subject, "provider's roles set");
        Ok(ProviderRoles { provider: provider.to_owned(), roles })
    }

    /// Whether this person may start this run: with these providers, and with money left.
    ///
    /// # Errors
    /// FORBIDDEN for a provider, VALIDATION_ERROR for a model without a price where there is a limit, QUEUE_ERROR for one
    /// that is reached.
    pub(super) async fn check_spending(
        &self,
        requester: &Requester,
        prepared: &Prepared,
        costs: &[Option<JobCost>],
        met: &Conditions,
    ) -> Result<()> {
        let restricted = if met.has_provider_roles { self.provider_roles().await? } else { Vec::new() };
        for model in &prepared.run.models {
            let refused = restricted.iter().find(|r| {
                r.provider == model.provider()
                    && !r.roles.as_ref().is_some_and(|roles| roles.contains(&requester.role))
            });
            if let Some(refused) = refused {
                return Err(Error::Forbidden(format!(
                    "The provider {} of the model {model} may not be used with the role {}: ask an admin, or leave the model out.",
                    refused.provider, requester.role
                )));
            }
        }
        if !met.has_spend_limits {
            return Ok(());
        }
        let own = (requester.subject.as_str(), requester.group.as_deref());
        let limits = self.store.spend_limits(Some(own)).await.map_err(|e| self.failed(e))?;
        let Some(tightest) = limits.into_iter().next() else { return Ok(()) };
        let unknown = prepared
            .run
            .models
            .iter()
            .zip(costs)
            .filter(|(model, cost)| cost.is_none() && !FREE_PROVIDERS.contains(&model.provider()));
        let unknown: Vec<&str> = unknown.map(|(model, _)| model.as_str()).collect();
        if !unknown.is_empty() {
            let message = format!(
                "has {}, whose price is unknown, while there is a spend limit for {}: leave them out, or have the operator give their prices in RUNLANE_PRICES_FILE",
                unknown.join(", "),
                tightest.account.owner()
            );
            return Err(ValidationErrors::one("input.models", message).into());
        }
        let least = costs.iter().flatten().map(|c| c.at_most_usd).min().unwrap_or_default();
        let unreserved = tightest.limit_usd.map(|limit| limit - tightest.spent_usd);
        match (unreserved, tightest.hold()) {
            (Some(left), Some(hold)) if left <= Decimal::ZERO || left < least => {
                Err(Error::SpendLimit(Box::new(hold)))
            }
            _ => Ok(()),
        }
    }

    fn account(&self, scope: SpendScope, key: Option<String>, period: SpendPeriod) -> Result<Account> {
        let mut checker = Checker::new("", self.limits.mistakes_max);
        checker.within("key", |c| match (scope, &key) {
            (SpendScope::Installation, Some(_)) => {
                c.error("is given, but there is one installation only: leave it out")
            }
            (SpendScope::Installation, None) => {}
            (_, None) => c.error("is missing: give the name of the group or the user"),
            (_, Some(key)) => {
                c.text(key, TextRule::name(Length::Chars(self.limits.name_max_chars)));
            }
        });
        checker.finish()?;
        Ok(Account { scope, key: key.unwrap_or_default(), period })
    }
}
