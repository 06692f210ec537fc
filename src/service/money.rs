//! What things cost, and what a run may cost.

use rust_decimal::Decimal;
use uuid::Uuid;

use super::access::{not_found, parse_id, require_writer};
use super::control::allows;
use super::{Entity, Result, Service};
use crate::domain::definition::DefinitionContent;
use crate::domain::estimate::Conversation;
use crate::domain::guard::{Budget, check_usd};
use crate::domain::prices::{PriceEntry, Prices};
use crate::domain::start_run::NewRun;
use crate::domain::view::Run;
use crate::domain::{Checker, ModelId, Requester, RunAction, ValidationErrors};
use crate::store::BudgetSet;

/// What a job of one model costs, as far as it is known before.
#[derive(Debug, Clone)]
pub(super) struct JobCost {
    /// Of its tokens.
    pub(super) prices: Prices,
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
    pub(super) fn conversation(&self, content: &DefinitionContent, run: &NewRun) -> Conversation {
        let expected = self.config.numbers.expected_output_tokens.unsigned_abs();
        Conversation::new(content, &run.params, expected.into())
    }

    /// What a job of each model costs; `None` where its price is unknown.
    ///
    /// # Errors
    /// VALIDATION_ERROR for a budget that cannot be kept.
    pub(super) async fn expected_costs(
        &self,
        definition: Uuid,
        content: &DefinitionContent,
        run: &NewRun,
        scenarios: Option<&[i64]>,
    ) -> Result<Vec<Option<JobCost>>> {
        let known = run.models.iter().map(|m| self.config.prices.find(m.as_str()).map(|e| e.prices));
        let known: Vec<Option<Prices>> = known.collect();
        if known.iter().all(Option::is_none) {
            run.budget.map_or(Ok(()), |_| require_prices(&run.models, &known))?;
            return Ok(vec![None; known.len()]);
        }
        let sizes = self.store.prompt_sizes(definition, scenarios).await.map_err(|e| self.failed(e))?;
        let tokens = self.conversation(content, run).at_most(sizes.longest);
        let costs: Vec<Option<JobCost>> = known
            .iter()
            .map(|prices| prices.map(|prices| JobCost { prices, at_most_usd: tokens.cost(&prices) }))
            .collect();
        if let Some(budget) = run.budget {
            require_prices(&run.models, &known)?;
            require_one_job(budget, &costs)?;
        }
        Ok(costs)
    }
}

/// A budget cannot be kept where nobody knows what is spent.
fn require_prices(models: &[ModelId], known: &[Option<Prices>]) -> Result<()> {
    let unknown = models.iter().zip(known).filter(|(_, prices)| prices.is_none());
    let unknown: Vec<&str> = unknown.map(|(model, _)| model.as_str()).collect();
    if unknown.is_empty() { Ok(()) } else { Err(unpriced("input.budgetUsd", &unknown)) }
}

/// Why a budget cannot be kept for these models.
pub(super) fn unpriced(field: &str, models: &[&str]) -> super::Error {
    let message = format!(
        "cannot be kept, because the price of {} is unknown: leave these models out, leave the budget out, or have the operator give their prices in RUNLANE_PRICES_FILE",
        models.join(", ")
    );
    ValidationErrors::one(field, message).into()
}

/// A budget into which no job fits would start nothing.
fn require_one_job(budget: Budget, costs: &[Option<JobCost>]) -> Result<()> {
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
