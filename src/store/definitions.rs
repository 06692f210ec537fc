//! Definitions: created with their scenarios, read one by one and as a list.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::transaction::in_transaction;
use super::{Result, Store};
use crate::domain::page::{Page, PageRequest};
use crate::domain::view::Definition;

/// A definition to insert.
#[derive(Debug, Clone)]
pub struct DefinitionInsert {
    /// Its id.
    pub id: Uuid,
    /// Its name; the version is the next one of the name.
    pub name: String,
    /// What was given, with defaults filled in.
    pub content: Value,
    /// Whoever creates it.
    pub created_by: String,
    /// At least one, with unique keys.
    pub scenarios: ScenarioColumns,
}

/// Scenarios to insert, as parallel lists: they go to the database as arrays.
#[derive(Debug, Clone, Default)]
pub struct ScenarioColumns {
    /// Unique.
    pub keys: Vec<String>,
    /// For people.
    pub names: Vec<String>,
    /// What is put to the model.
    pub prompts: Vec<String>,
    /// The values of the dimensions, by name: JSON as text. Whoever makes it does so where it holds nobody up.
    pub dimensions: Vec<String>,
}

impl Store {
    /// Inserts a definition as the next version of its name, with all its scenarios.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn insert_definition(&self, definition: DefinitionInsert) -> Result<Definition> {
        let definition = Arc::new(definition);
        in_transaction(self, move |connection| {
            let d = Arc::clone(&definition);
            Box::pin(async move {
                // Creators of one name wait for each other here, in a statement of its own: the next one's snapshot
                // then sees the version before.
                sqlx::query!("select pg_advisory_xact_lock(hashtextextended($1, 0))", d.name)
                    .execute(&mut *connection)
                    .await?;
                let row = sqlx::query_as!(
                    Definition,
                    r#"
                    with d as (
                        insert into definition (id, name, version, content, scenario_count, created_by)
                        select $1, $2, coalesce(max(o.version), 0) + 1, $3, cardinality($5::text[]), $4
                          from definition o where o.name = $2
                        returning *
                    ), s as (
                        insert into scenario (definition_id, key, name, prompt, dimensions)
                        select $1, u.key, u.name, u.prompt, u.dimensions::jsonb
                          from unnest($5::text[], $6::text[], $7::text[], $8::text[]) with ordinality
                            as u (key, name, prompt, dimensions, n)
                         order by u.n
                    )
                    select id as "id!", seq as "seq!", name as "name!", version as "version!", content as "content!",
                           scenario_count as "scenario_count!", created_by as "created_by!",
                           created_at as "created_at!"
                      from d
                    "#,
                    d.id,
                    d.name,
                    d.content,
                    d.created_by,
                    &d.scenarios.keys,
                    &d.scenarios.names,
                    &d.scenarios.prompts,
                    &d.scenarios.dimensions,
                )
                .fetch_one(&mut *connection)
                .await?;
                sqlx::query!(
                    "select record_act('createDefinition', 'definition', $1::uuid::text, null, null,
                                       jsonb_build_object('name', $2::text, 'version', $3::int, 'scenarios', $4::int))",
                    row.id,
                    row.name,
                    row.version,
                    row.scenario_count
                )
                .fetch_one(connection)
                .await?;
                Ok(row)
            })
        })
        .await
    }

    /// The definitions with these ids, in no order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn definitions_by_id(&self, ids: &[Uuid]) -> Result<Vec<Definition>> {
        let definitions = sqlx::query_as!(
            Definition,
            "select id, seq, name, version, content, scenario_count, created_by, created_at
               from definition where id = any($1) and deleted_at is null",
            ids
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(definitions)
    }

    /// A page of the definitions whose name contains `search`, in any case, newest first; the total is counted up to
    /// `count_max`.
    ///
    /// The search reads the list in its order and filters: definitions are few, and an index on parts of names would
    /// need an extension that not every installation has.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn definitions(
        &self,
        search: Option<&str>,
        page: &PageRequest<i64>,
        count_max: i64,
    ) -> Result<Page<Definition>> {
        let pattern = search.map(contains_pattern);
        let items = sqlx::query_as!(
            Definition,
            "select id, seq, name, version, content, scenario_count, created_by, created_at
               from definition
              where deleted_at is null and seq < $1 and ($2::text is null or name ilike $2)
              order by seq desc
              limit $3",
            page.after.unwrap_or(i64::MAX),
            pattern,
            page.limit + 1
        )
        .fetch_all(&self.pool)
        .await?;
        let total = if page.count {
            let counted = sqlx::query_scalar!(
                r#"select count(*) as "count!"
                     from (select from definition
                            where deleted_at is null and ($1::text is null or name ilike $1) limit $2) as counted"#,
                pattern,
                count_max + 1
            )
            .fetch_one(&self.pool)
            .await?;
            (counted <= count_max).then_some(counted)
        } else {
            None
        };
        Ok(Page::new(items, page, total))
    }
}

/// A LIKE pattern for everything that contains `text` itself.
fn contains_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_searched_for_is_no_pattern() {
        assert_eq!(contains_pattern(r"100%_\a"), r"%100\%\_\\a%");
    }
}
