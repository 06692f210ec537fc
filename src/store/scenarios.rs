//! Scenarios of definitions, and of runs: their samples.

use futures_util::TryStreamExt;
use uuid::Uuid;

use super::{Result, Store};
use crate::domain::estimate::PromptSizes;
use crate::domain::page::{Page, PageRequest};
use crate::domain::view::Scenario;

/// The id and key of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioKey {
    /// Its id.
    pub id: i64,
    /// Unique in its definition.
    pub key: String,
}

impl Store {
    /// All scenarios of a definition by id and key, in the order of their keys.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn scenario_keys(&self, definition_id: Uuid) -> Result<Vec<ScenarioKey>> {
        let mut rows = sqlx::query_as!(
            ScenarioKey,
            r#"select id, key from scenario where definition_id = $1 order by key collate "C""#,
            definition_id
        )
        .fetch(&self.pool);
        let mut keys = Vec::new();
        while let Some(key) = rows.try_next().await? {
            keys.push(key);
            // Many rows arrive at once: others get their turn between them.
            tokio::task::consume_budget().await;
        }
        Ok(keys)
    }

    /// The lengths of the prompts of these scenarios of a definition; of all without ids.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn prompt_sizes(&self, definition_id: Uuid, ids: Option<&[i64]>) -> Result<PromptSizes> {
        let sizes = sqlx::query!(
            r#"select count(*) as "count!", coalesce(sum(octet_length(prompt)), 0)::bigint as "total!",
                      coalesce(max(octet_length(prompt)), 0)::bigint as "longest!"
                 from scenario where definition_id = $1 and ($2::bigint[] is null or id = any ($2))"#,
            definition_id,
            ids
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(PromptSizes {
            count: sizes.count.unsigned_abs(),
            total: sizes.total.unsigned_abs(),
            longest: sizes.longest.unsigned_abs(),
        })
    }

    /// The scenarios with these ids, in no order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn scenarios_by_id(&self, ids: &[i64]) -> Result<Vec<Scenario>> {
        let scenarios = sqlx::query_as!(
            Scenario,
            "select id, key, name, prompt, dimensions from scenario where id = any($1)",
            ids
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(scenarios)
    }

    /// A page of a definition's scenarios, by key. The total is the definition's own.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn definition_scenarios(
        &self,
        definition_id: Uuid,
        page: &PageRequest<String>,
        total: i64,
    ) -> Result<Page<Scenario>> {
        let items = sqlx::query_as!(
            Scenario,
            r#"select id, key, name, prompt, dimensions
                 from scenario
                where definition_id = $1 and ($2::text is null or key collate "C" > $2)
                order by key collate "C"
                limit $3"#,
            definition_id,
            page.after,
            page.limit + 1
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(Page::new(items, page, page.count.then_some(total)))
    }

    /// A page of the scenarios that a run took, by key: those of the jobs of its first lane. The total is that lane's.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn run_scenarios(&self, run_id: Uuid, page: &PageRequest<String>) -> Result<Page<Scenario>> {
        let items = sqlx::query_as!(
            Scenario,
            r#"select s.id, s.key, s.name, s.prompt, s.dimensions
                 from scenario s
                where s.definition_id = (select r.definition_id from run r where r.id = $1)
                  and ($2::text is null or s.key collate "C" > $2)
                  and exists (
                    select from any_job j
                     where j.scenario_id = s.id
                       and j.lane_id = (select l.id from lane l
                                         where l.run_id = $1 and l.kind = 'probe:scenario'
                                         order by l.position limit 1))
                order by s.key collate "C"
                limit $3"#,
            run_id,
            page.after,
            page.limit + 1
        )
        .fetch_all(&self.pool)
        .await?;
        let total = if page.count {
            let total = sqlx::query_scalar!(
                "select total from lane where run_id = $1 and kind = 'probe:scenario' order by position limit 1",
                run_id
            )
            .fetch_optional(&self.pool)
            .await?;
            Some(total.map_or(0, i64::from))
        } else {
            None
        };
        Ok(Page::new(items, page, total))
    }
}
