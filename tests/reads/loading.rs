//! An answer about many objects takes as many statements as one about few.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use runlane::domain::Role;
use serde_json::json;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::graphql::Surface;

/// Counts the statements that sqlx logs on this thread.
#[derive(Clone, Default)]
struct Statements(Arc<AtomicUsize>);

impl<S: tracing::Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn a_list_takes_as_many_statements_as_one_item() {
    let statements = Statements::default();
    // While there is only one, tracing asks the default of whichever thread meets a statement first whether to log any.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(statements.clone()));
    let surface = Surface::create().await;
    let definition = surface.definition().await;
    for _ in 0..5 {
        surface.start("ada", json!({"definitionId": definition["id"], "models": ["mock/a", "mock/b"]})).await;
    }
    let count = async |first: i32| {
        let query = "query($first: Int!) {
            runs(first: $first) { totalCount nodes {
                definition { name } recentTasks { jobId } estimatedTimeRemaining analyses { id }
                progress { total byModel { total } } costUsd revision
            } }
        }";
        let before = statements.0.load(Ordering::Relaxed);
        surface.data("ada", Role::User, query, json!({"first": first})).await;
        statements.0.load(Ordering::Relaxed) - before
    };
    let one = count(1).await;
    assert_eq!(one, 5, "the page, its total, definitions, tasks, analyses");
    assert_eq!(count(5).await, one);

    let jobs = async |first: i32| {
        let query = "query($first: Int!) { runs(first: 1) { nodes {
            jobs(first: $first) { nodes { scenario { key } attempts { number } waitingBecause } } } } }";
        let before = statements.0.load(Ordering::Relaxed);
        surface.data("ada", Role::User, query, json!({"first": first})).await;
        statements.0.load(Ordering::Relaxed) - before
    };
    let one = jobs(1).await;
    assert_eq!(one, 6, "the run, the page, scenarios, attempts, reasons, what has waited for long");
    assert_eq!(jobs(8).await, one);
}

#[tokio::test]
async fn a_run_is_started_with_as_many_statements_however_many_models_it_has() {
    let statements = Statements::default();
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(statements.clone()));
    let surface = Surface::create().await;
    let definition = surface.definition().await;
    for models in [vec!["mock/a"], vec!["mock/a", "mock/b", "mock/c"]] {
        let input = json!({"definitionId": definition["id"], "models": models});
        let start = "mutation($input: StartRunInput!) { startRun(input: $input) { id } }";
        let before = statements.0.load(Ordering::Relaxed);
        surface.data("ada", Role::User, start, json!({"input": input})).await;
        let sent = statements.0.load(Ordering::Relaxed) - before;
        assert_eq!(sent, 3, "what it meets, the run with its jobs, and the run to show");
    }
}
