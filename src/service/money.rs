//! What things cost, and what a run may cost.

use chrono::NaiveDate;
use rust_decimal::Decimal;
use uuid::Uuid;

use super::access::{not_found, parse_id, require_writer};
use super::control::allows;
use super::start::Prepared;
use super::{Entity, Result, Service};
use crate::domain::estimate::{Conversation, PromptSizes};
use crate::domain::guard::{Budget, check_usd};
use crate::domain::prices::{PriceEntry, Prices};
use crate::domain::view::Run;
use crate::domain::{Checker, ModelId, Requester, RunAction, ValidationErrors};
use crate::store::BudgetSet;

/// What a job of one model costs, as far as it is known before.
#[derive(Debug, Clone)]
pub(super) struct JobCost {
    /// Of its tokens.
    pub(super) prices: Prices,
    /// The day of these prices.
    pub(super) as_of: NaiveDate,
    /// Of the sample's prompts.
    pub(super) sizes: PromptSizes,
    /// US dollars for the longest prompt of the sample, answered at the length that the run allows.
    pub(super) at_most_usd: Decimal,
}

impl Service {
    /// Gives a run another budget, or none.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, RUN_STATE_ERROR, VALIDATION_ERROR for no amount and for models without a price.
    pub async fn set_run_budget(&self, requester: &Requester, id: &str, usd: Option<Decimal>) -> Result<Run> {
        require_writer(requester)?;
        if let Some(usd) = usd {
            let mut checker = Checker::new("", self.limits.mistakes_max);
            checker.within("budgetUsd", |c| check_usd(c, usd));
            checker.finish()?;
        }
        let run_id: Uuid = parse_id(Entity::Run, id)?;
        let allow = allows(requester, RunAction::SetBudget, id);
        let store = self.store.acting_for(requester);
        let outcome = store.set_run_budget(run_id, usd.map(|usd| usd.normalize()), allow).await;
        match outcome.map_err(|e| self.failed(e))?.ok_or_else(|| not_found(Entity::Run, id))?? {
            BudgetSet::Unpriced(models) => {
                let models: Vec<&str> = models.iter().map(String::as_str).collect();
                return Err(unpriced("budgetUsd", &models));
            }
            BudgetSet::Done => {
                tracing::info!(run_id = %run_id, budget_usd = ?usd, by = requester.subject, "budget set");
            }
        }
        let changed = self.read_back(|| self.store.run(run_id)).await.map_err(|e| self.failed(e))?;
        changed.ok_or_else(|| not_found(Entity::Run, id))
    }

    /// The price table; of one model, the row that it takes.
    ///
    /// # Errors
    /// VALIDATION_ERROR for a text that is no model id.
    pub fn prices(&self, model: Option<&str>) -> Result<Vec<PriceEntry>> {
        let table = &self.config.prices;
        let Some(model) = model else { return Ok(table.entries().to_vec()) };
        let model: ModelId = model.parse().map_err(|e| ValidationErrors::one("model", format!("{e}")))?;
        Ok(table.find(model.as_str()).cloned().into_iter().collect())
    }

    /// What the conversations of a run look like.
    pub(super) fn conversation(&self, prepared: &Prepared) -> Conversation {
        let expected = self.config.numbers.expected_output_tokens.unsigned_abs();
        Conversation::new(&prepared.content, &prepared.run.params, expected.into())
    }

    /// What a job of each model costs; `None` where its price is unknown.
    ///
    /// # Errors
    /// Only failures of the server.
    pub(super) async fn job_costs(&self, prepared: &Prepared) -> Result<Vec<Option<JobCost>>> {
        let found = prepared.run.models.iter().map(|m| self.config.prices.find(m.as_str()));
        let found: Vec<Option<&PriceEntry>> = found.collect();
        if found.iter().all(Option::is_none) {
            return Ok(vec![None; found.len()]);
        }
        let sizes = self.prompt_sizes(prepared).await?;
        let tokens = self.conversation(prepared).at_most(sizes.longest);
        let cost = |entry: &PriceEntry| JobCost {
            prices: entry.prices,
            as_of: entry.as_of,
            sizes,
            at_most_usd: tokens.cost(&entry.prices),
        };
        Ok(found.into_iter().map(|entry| entry.map(cost)).collect())
    }

    /// The lengths of the prompts of the sample.
    pub(super) async fn prompt_sizes(&self, prepared: &Prepared) -> Result<PromptSizes> {
        let (definition, ids) = (prepared.definition.id, prepared.scenario_ids.as_deref());
        self.store.prompt_sizes(definition, ids).await.map_err(|e| self.failed(e))
    }
}

/// Whether a budget can be kept: the price of every model is known, and a job of one fits in.
///
/// # Errors
/// VALIDATION_ERROR that says what stands in the way.
pub(super) fn check_budget(budget: Budget, models: &[ModelId], costs: &[Option<JobCost>]) -> Result<()> {
    let unknown = models.iter().zip(costs).filter(|(_, cost)| cost.is_none());
    let unknown: Vec<&str> = unknown.map(|(model, _)| model.as_str()).collect();
    if !unknown.is_empty() {
        return Err(unpriced("input.budgetUsd", &unknown));
    }
    match costs.iter().flatten().map(|c| c.at_most_usd).min() {
        Some(least) if least > budget.usd => {
            let message = format!(
                "is {}, and a single job may cost {least}: give more, or fewer params.maxTokens",
                budget.usd
            );
            Err(ValidationErrors::one("input.budgetUsd", message).into())
        }
        _ => Ok(()),
    }
}

/// Why a budget cannot be kept for these models.
pub(super) fn unpriced(field: &str, models: &[&str]) -> super::Error {
    let message = format!(
        "cannot be kept, because the price of {} is unknown: leave these models out, leave the budget out, or have the operator give their prices in RUNLANE_PRICES_FILE",
        models.join(", ")
    );
    ValidationErrors::one(field, message).into()
}
