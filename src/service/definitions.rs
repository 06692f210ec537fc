//! Definitions and their scenarios.

use uuid::Uuid;

use super::access::require_writer;
use super::{Error, Result, Service};
use crate::domain::definition::{CreateDefinition, scenario_name};
use crate::domain::page::{Page, PageRequest};
use crate::domain::view::{Definition, Scenario};
use crate::domain::{Limits, Requester, ids, request};
use crate::store::{DefinitionInsert, ScenarioColumns};

impl Service {
    /// Creates a definition, or the next version of one.
    ///
    /// # Errors
    /// FORBIDDEN, VALIDATION_ERROR.
    pub async fn create_definition(
        &self,
        requester: &Requester,
        input: CreateDefinition,
    ) -> Result<Definition> {
        require_writer(requester)?;
        let (limits, created_by) = (self.limits, requester.subject.clone());
        let insert = super::compute(move || definition_insert(input, &limits, created_by)).await??;
        let definition =
            self.store.acting_for(requester).insert_definition(insert).await.map_err(|e| self.failed(e))?;
        tracing::info!(
            definition_id = %definition.id,
            version = definition.version,
            scenarios = definition.scenario_count,
            by = requester.subject,
            "definition created"
        );
        Ok(definition)
    }

    /// The definition with this id. Everybody reads definitions.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn definition(&self, id: &str) -> Result<Option<Definition>> {
        let Ok(id) = id.parse::<Uuid>() else { return Ok(None) };
        Ok(self.definitions_by_id(&[id]).await?.pop())
    }

    /// The definitions with these ids, in no order.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn definitions_by_id(&self, ids: &[Uuid]) -> Result<Vec<Definition>> {
        self.store.definitions_by_id(ids).await.map_err(|e| self.failed(e))
    }

    /// The definitions whose name contains `search`, newest first.
    ///
    /// # Errors
    /// VALIDATION_ERROR for a search text that cannot be.
    pub async fn definitions(
        &self,
        search: Option<String>,
        page: &PageRequest<i64>,
    ) -> Result<Page<Definition>> {
        let search = request::search_text(search, &self.limits)?;
        let count_max = self.config.numbers.count_max;
        self.store.definitions(search.as_deref(), page, count_max).await.map_err(|e| self.failed(e))
    }

    /// The scenarios of a definition, by key.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn definition_scenarios(
        &self,
        definition: &Definition,
        page: &PageRequest<String>,
    ) -> Result<Page<Scenario>> {
        let total = definition.scenario_count.into();
        self.store.definition_scenarios(definition.id, page, total).await.map_err(|e| self.failed(e))
    }

    /// The scenarios with these ids, in no order.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn scenarios_by_id(&self, ids: &[i64]) -> Result<Vec<Scenario>> {
        self.store.scenarios_by_id(ids).await.map_err(|e| self.failed(e))
    }
}

/// Checks a definition and makes its scenarios: seconds of work when there are many.
fn definition_insert(
    input: CreateDefinition,
    limits: &Limits,
    created_by: String,
) -> Result<DefinitionInsert> {
    let checked = input.check(limits)?;
    let mut scenarios = ScenarioColumns::default();
    for scenario in checked.scenarios {
        let name = scenario
            .dimension_map()
            .map_or_else(|| scenario.key.clone(), |dimensions| scenario_name(&scenario.key, dimensions));
        scenarios.names.push(name);
        scenarios.keys.push(scenario.key);
        scenarios.prompts.push(scenario.prompt);
        scenarios.dimensions.push(scenario.dimensions.to_string());
    }
    Ok(DefinitionInsert {
        id: ids::new_id(),
        name: checked.name,
        content: serde_json::to_value(&checked.content).map_err(|e| Error::internal(&e))?,
        created_by,
        scenarios,
    })
}
