//! The GraphQL surface: reads arguments, asks the services, shows what they answer. Nothing is decided here.
//!
//! Types wrap what the domain shows and are never derived on rows. Errors become GraphQL in one place, `error`.
//! Whatever many objects of one answer need is loaded for all of them at once, by loaders that live as long as the
//! request. The request's data must hold the [`Requester`](crate::domain::Requester), and should hold the
//! [`RequestId`](crate::domain::RequestId).

mod analysis;
mod arguments;
mod connection;
mod context;
mod dead_letter;
mod definition;
mod deletion;
mod enums;
mod error;
mod estimate;
mod filters;
mod history;
mod inputs;
mod job;
mod loaders;
mod money;
mod mutation;
mod node;
mod query;
mod queue;
mod rate_limit;
mod results;
mod run;
mod scalars;
mod staleness;

use std::sync::Arc;

use async_graphql::{Data, EmptySubscription, Executor, Request, Response, SchemaBuilder};
use chrono::{DateTime, Utc};
use futures_util::stream::BoxStream;

use crate::config::Numbers;
use crate::http::Completed;
use crate::service::Service;

/// The schema with everything that it needs to answer.
#[derive(Clone)]
pub struct Schema {
    completed: Completed<query::Query, mutation::Mutation>,
    service: Service,
}

impl Executor for Schema {
    async fn execute(&self, request: Request) -> Response {
        let request = request.data(loaders::for_request(&self.service));
        self.completed.execute(request).await
    }

    fn execute_stream(&self, request: Request, data: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        let request = request.data(loaders::for_request(&self.service));
        self.completed.execute_stream(request, data)
    }
}

/// The schema over the services, with the limits of `numbers`.
#[must_use]
pub fn schema(service: Service, numbers: &Numbers) -> Schema {
    let schema = types()
        .limit_depth(numbers.graphql_depth_max)
        .limit_complexity(numbers.graphql_complexity_max)
        .limit_recursive_depth(numbers.graphql_recursion_max)
        .limit_directives(numbers.graphql_directives_max)
        .data(service.clone())
        .finish();
    Schema { completed: schema.into(), service }
}

/// The schema as text, for people and generators.
#[must_use]
pub fn sdl() -> String {
    types().finish().sdl()
}

fn types() -> SchemaBuilder<query::Query, mutation::Mutation, EmptySubscription> {
    async_graphql::Schema::build(query::Query, mutation::Mutation, EmptySubscription)
        .override_output_type_description::<DateTime<Utc>>("A point in time, UTC, as RFC 3339 writes it.")
}

#[cfg(test)]
mod contract_tests;
