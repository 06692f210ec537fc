//! What resolvers find in their context.

use async_graphql::dataloader::DataLoader;
use async_graphql::{Context, Result};

use super::loaders::Batches;
use crate::domain::{RequestId, Requester};
use crate::service::{self, Service};

/// Shortcuts to the data of the schema and of the request.
pub(super) trait ContextExt {
    /// Who asks.
    fn requester(&self) -> Result<&Requester>;
    /// The id of the request, for the log; empty where the transport gave none.
    fn request_id(&self) -> &str;
    /// What decides.
    fn service(&self) -> Result<&Service>;
    /// What loads for many objects at once.
    fn batches(&self) -> Result<&DataLoader<Batches>>;
    /// Whether the selected connection's `totalCount` is asked for.
    fn wants_total(&self) -> bool;
}

fn missing(what: &str) -> async_graphql::Error {
    service::Error::Internal { internal: format!("{what} is missing in the data of the request") }.into()
}

impl ContextExt for Context<'_> {
    fn requester(&self) -> Result<&Requester> {
        self.data_opt().ok_or_else(|| missing("the requester"))
    }

    fn request_id(&self) -> &str {
        self.data_opt::<RequestId>().map_or("", |id| id.0.as_str())
    }

    fn service(&self) -> Result<&Service> {
        self.data_opt().ok_or_else(|| missing("the service"))
    }

    fn batches(&self) -> Result<&DataLoader<Batches>> {
        self.data_opt().ok_or_else(|| missing("the loader"))
    }

    fn wants_total(&self) -> bool {
        self.look_ahead().field("totalCount").exists()
    }
}
