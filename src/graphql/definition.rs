//! Definitions and scenarios.

use std::sync::Arc;

use async_graphql::{Context, ID, Json, Object, Result};
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::arguments::{list_cost, page_request};
use super::connection::Connection;
use super::context::ContextExt;
use super::run::Run;
use crate::domain::filter::RunFilter;
use crate::domain::view;

/// What is asked: preamble, template, dimensions, scoring. It owns scenarios, and never changes.
#[derive(Clone)]
pub(super) struct Definition(Arc<view::Definition>);

impl From<view::Definition> for Definition {
    fn from(definition: view::Definition) -> Self {
        Self(Arc::new(definition))
    }
}

/// What is asked: preamble, template, dimensions, scoring. It owns scenarios, and never changes.
#[Object]
impl Definition {
    /// Of this version.
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// Shared by all versions.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// 1, 2, 3 …: creating a definition with an existing name makes the next one.
    async fn version(&self) -> i32 {
        self.0.version
    }

    /// What was given when it was created.
    async fn content(&self) -> Json<Value> {
        Json(self.0.content.clone())
    }

    /// How many scenarios it has.
    async fn scenario_count(&self) -> i32 {
        self.0.scenario_count
    }

    /// Its scenarios, by key.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn scenarios(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
    ) -> Result<Connection<Scenario>> {
        let page = page_request::<view::Scenario>(ctx, first, after.as_deref())?;
        let scenarios = ctx.service()?.definition_scenarios(&self.0, &page).await?;
        Ok(Connection::new(scenarios, Scenario::from))
    }

    /// The runs of it that you may see, newest first.
    #[graphql(complexity = "list_cost(first, child_complexity)")]
    async fn runs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many; more than 100 count as 100.", default = 50)] first: i32,
        #[graphql(desc = "Only what follows this cursor.")] after: Option<String>,
    ) -> Result<Connection<Run>> {
        let page = page_request::<view::Run>(ctx, first, after.as_deref())?;
        let filter = RunFilter { definition_id: Some(self.0.id), ..RunFilter::default() };
        let runs = ctx.service()?.runs(ctx.requester()?, filter, &page).await?;
        Ok(Connection::new(runs, Run::from))
    }

    /// Whoever created this version.
    async fn created_by(&self) -> &str {
        &self.0.created_by
    }

    /// When this version was created.
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }
}

/// One concrete prompt of a definition.
#[derive(Clone)]
pub(super) struct Scenario(Arc<view::Scenario>);

impl From<view::Scenario> for Scenario {
    fn from(scenario: view::Scenario) -> Self {
        Self(Arc::new(scenario))
    }
}

/// One concrete prompt of a definition.
#[Object]
impl Scenario {
    /// Of the scenario in this version of its definition.
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// Stays the same over the versions of its definition, and is unique in each.
    async fn key(&self) -> &str {
        &self.0.key
    }

    /// For people.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What the model is asked.
    async fn prompt(&self) -> &str {
        &self.0.prompt
    }

    /// What sets it apart: the values of the dimensions, by name.
    async fn dimensions(&self) -> Json<Value> {
        Json(self.0.dimensions.clone())
    }
}
