//! Makes responses what the GraphQL specification says when fields fail.
//!
//! async-graphql since 7.1 leaves a failed field out of its object, whether it may be null or not, and orders the fields
//! of an object by which was ready first. By the specification a failed field is null, or, where it must not be, the
//! nearest thing above it that may be; and fields come in the order of the query. Typed clients rely on the former.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::indexmap::IndexMap;
use async_graphql::parser::types::{
    ExecutableDocument, Field, FragmentDefinition, OperationType, Selection, SelectionSet,
};
use async_graphql::registry::{MetaType, MetaTypeName, Registry};
use async_graphql::{
    Data, EmptySubscription, Executor, Name, ObjectType, PathSegment, Positioned, Request, Response, Schema,
    ServerError, Value,
};
use futures_util::stream::BoxStream;

use super::params;

/// A schema whose responses are completed. It is no extension of the schema: one that has any calls them for each field,
/// which takes longer than most fields do.
pub struct Completed<Q, M> {
    schema: Schema<Q, M, EmptySubscription>,
    /// The types of the schema, which keeps its own to itself.
    types: Arc<Registry>,
}

impl<Q, M> Clone for Completed<Q, M> {
    fn clone(&self) -> Self {
        Self { schema: self.schema.clone(), types: Arc::clone(&self.types) }
    }
}

impl<Q: ObjectType, M: ObjectType> From<Schema<Q, M, EmptySubscription>> for Completed<Q, M> {
    fn from(schema: Schema<Q, M, EmptySubscription>) -> Self {
        let mut types = Registry::default();
        Q::create_type_info(&mut types);
        M::create_type_info(&mut types);
        types.query_type = Q::type_name().into_owned();
        types.mutation_type = Some(M::type_name().into_owned());
        Self { schema, types: Arc::new(types) }
    }
}

impl<Q: ObjectType + 'static, M: ObjectType + 'static> Executor for Completed<Q, M> {
    async fn execute(&self, mut request: Request) -> Response {
        let document = match request.parsed_query() {
            Ok(document) => document.clone(),
            Err(error) => return Response::from_errors(vec![error]),
        };
        let operation_name = request.operation_name.clone();
        let mut response = self.schema.execute(request).await;
        complete(&self.types, &document, operation_name.as_deref(), &mut response);
        response
    }

    fn execute_stream(&self, request: Request, data: Option<Arc<Data>>) -> BoxStream<'static, Response> {
        Executor::execute_stream(&self.schema, request, data)
    }
}

/// Completes the data of `response` to `document`. Errors without a path say that nothing was executed: then there is none.
fn complete(
    registry: &Registry,
    document: &ExecutableDocument,
    operation_name: Option<&str>,
    response: &mut Response,
) {
    let Some(operation) = params::operation(document, operation_name) else { return };
    let root = match operation.ty {
        OperationType::Query => Some(&registry.query_type),
        OperationType::Mutation => registry.mutation_type.as_ref(),
        OperationType::Subscription => None,
    };
    let Some(root) = root else { return };
    let mut completer =
        Completer { registry, fragments: &document.fragments, errors: &response.errors, path: Vec::new() };
    let data = std::mem::take(&mut response.data);
    response.data = completer.object(root, &[&operation.selection_set.node], data).unwrap_or_default();
}

struct Completer<'r> {
    registry: &'r Registry,
    fragments: &'r HashMap<Name, Positioned<FragmentDefinition>>,
    errors: &'r [ServerError],
    /// Where in the response we are.
    path: Vec<PathSegment>,
}

/// A null that may not stay where it is.
struct Bubbles;

impl<'r> Completer<'r> {
    /// Whether an error happened here or below.
    fn failed(&self) -> bool {
        self.errors.iter().any(|e| e.path.starts_with(&self.path))
    }

    /// Whether an error happened below, and so not here.
    fn failed_below(&self) -> bool {
        let depth = self.path.len();
        self.errors.iter().any(|e| e.path.len() > depth && e.path.starts_with(&self.path))
    }

    fn object(
        &mut self,
        type_name: &str,
        selections: &[&'r SelectionSet],
        value: Value,
    ) -> Result<Value, Bubbles> {
        let mut given = match value {
            Value::Object(map) => map,
            // An object of which every field failed arrives as null; one that failed itself stays null.
            Value::Null if self.failed_below() => IndexMap::new(),
            other => return Ok(other),
        };
        let mut fields: IndexMap<&str, Vec<&Field>> = IndexMap::new();
        for set in selections {
            self.collect(type_name, set, &mut fields);
        }
        let mut complete = IndexMap::with_capacity(fields.len());
        for (key, fields) in fields {
            self.path.push(PathSegment::Field(key.to_owned()));
            let value = match given.swap_remove(key) {
                Some(value) => Some(value),
                // Without an error it was skipped by a directive.
                None => self.failed().then_some(Value::Null),
            };
            if let Some(value) = value {
                let field_type =
                    self.registry.types.get(type_name).and_then(|t| t.field_by_name(&fields[0].name.node));
                let value = match field_type {
                    Some(field) => self.value(&field.ty, &fields, value)?,
                    // `__typename` and its like.
                    None => value,
                };
                complete.insert(Name::new(key), value);
            }
            self.path.pop();
        }
        Ok(Value::Object(complete))
    }

    fn value(&mut self, ty: &str, fields: &[&'r Field], value: Value) -> Result<Value, Bubbles> {
        let depth = self.path.len();
        let completed = match MetaTypeName::create(ty) {
            MetaTypeName::NonNull(inner) => {
                return match self.value(inner, fields, value)? {
                    Value::Null => Err(Bubbles),
                    value => Ok(value),
                };
            }
            MetaTypeName::List(inner) => self.list(inner, fields, value),
            MetaTypeName::Named(name) => match self.registry.types.get(name) {
                Some(MetaType::Object { .. }) => {
                    let selections: Vec<_> = fields.iter().map(|f| &f.selection_set.node).collect();
                    self.object(name, &selections, value)
                }
                // Scalars and enums are complete; which object an abstract type stands for is not known here.
                _ => Ok(value),
            },
        };
        // What may be null catches what bubbles.
        Ok(completed.unwrap_or_else(|Bubbles| {
            self.path.truncate(depth);
            Value::Null
        }))
    }

    fn list(&mut self, inner: &str, fields: &[&'r Field], value: Value) -> Result<Value, Bubbles> {
        let Value::List(items) = value else { return Ok(value) };
        let mut complete = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            self.path.push(PathSegment::Index(index));
            complete.push(self.value(inner, fields, item)?);
            self.path.pop();
        }
        Ok(Value::List(complete))
    }

    /// The fields that a selection means for `type_name`, by response key, in the order of the query.
    fn collect(
        &self,
        type_name: &str,
        set: &'r SelectionSet,
        fields: &mut IndexMap<&'r str, Vec<&'r Field>>,
    ) {
        for selection in &set.items {
            let (condition, set) = match &selection.node {
                Selection::Field(field) => {
                    fields.entry(field.node.response_key().node.as_str()).or_default().push(&field.node);
                    continue;
                }
                Selection::InlineFragment(fragment) => {
                    (fragment.node.type_condition.as_ref(), &fragment.node.selection_set)
                }
                Selection::FragmentSpread(spread) => {
                    match self.fragments.get(&spread.node.fragment_name.node) {
                        Some(fragment) => (Some(&fragment.node.type_condition), &fragment.node.selection_set),
                        None => continue,
                    }
                }
            };
            let applies = condition.is_none_or(|condition| {
                let on = condition.node.on.node.as_str();
                self.registry.types.get(on).is_some_and(|t| t.is_possible_type(type_name))
            });
            if applies {
                self.collect(type_name, &set.node, fields);
            }
        }
    }
}
