//! The schema keeps what clients rely on, and the committed text is that of the program.

use std::collections::BTreeSet;

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{InputValueDefinition, TypeKind, TypeSystemDefinition};

const CONTRACT: &str = include_str!("../../schema/contract.graphql");

/// A schema as lines: one for each scalar, enum value, field, argument and input field, with type and default.
#[derive(Default)]
struct Lines {
    /// What there is.
    all: BTreeSet<String>,
    /// Arguments and input fields that a client must give, as (owner, line).
    required: BTreeSet<(String, String)>,
    /// The fields and input types that `required` may name.
    owners: BTreeSet<String>,
}

impl Lines {
    fn of(schema: &str) -> Self {
        let mut lines = Self::default();
        for definition in parse_schema(schema).expect("the schema can be read").definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            let name = definition.node.name.node.as_str();
            match &definition.node.kind {
                TypeKind::Scalar => lines.add(format!("scalar {name}")),
                TypeKind::Enum(values) => {
                    values
                        .values
                        .iter()
                        .for_each(|v| lines.add(format!("enum {name} {}", v.node.value.node)));
                }
                TypeKind::Object(object) => {
                    for field in &object.fields {
                        let owner = format!("{name}.{}", field.node.name.node);
                        lines.add(format!("type {owner}: {}", field.node.ty.node));
                        field.node.arguments.iter().for_each(|a| lines.add_input(&owner, &a.node));
                        lines.owners.insert(owner);
                    }
                }
                TypeKind::InputObject(input) => {
                    let owner = format!("input {name}");
                    input.fields.iter().for_each(|f| lines.add_input(&owner, &f.node));
                    lines.owners.insert(owner);
                }
                other => panic!("{name}: neither the contract nor the schema has any {other:?}"),
            }
        }
        lines
    }

    fn add(&mut self, line: String) {
        self.all.insert(line);
    }

    fn add_input(&mut self, owner: &str, input: &InputValueDefinition) {
        let default = input.default_value.as_ref().map(|v| format!(" = {}", v.node)).unwrap_or_default();
        let line = format!("{owner}({}: {}{default})", input.name.node, input.ty.node);
        if !input.ty.node.nullable && input.default_value.is_none() {
            self.required.insert((owner.to_owned(), line.clone()));
        }
        self.add(line);
    }
}

/// How `schema` breaks `contract`: what it lacks, and what it newly demands.
fn breaches(contract: &str, schema: &str) -> Vec<String> {
    let (contract, schema) = (Lines::of(contract), Lines::of(schema));
    let lacks = contract.all.difference(&schema.all).map(|line| format!("lacks {line}"));
    let demands = schema
        .required
        .iter()
        .filter(|(owner, line)| contract.owners.contains(owner) && !contract.all.contains(line))
        .map(|(_, line)| format!("demands {line}"));
    lacks.chain(demands).collect()
}

#[test]
fn the_sdl_contains_the_contract() {
    assert_eq!(breaches(CONTRACT, &super::sdl()), Vec::<String>::new());
}

#[test]
fn every_kind_of_breach_is_seen() {
    let changes = [
        ("  queueStatus: QueueStatus!\n", "", "lacks type Query.queueStatus: QueueStatus!"),
        ("costUsd: Money\n  usage", "costUsd: Float\n  usage", "lacks type Transcript.costUsd: Money"),
        ("latencyMs: Int!", "latencyMs: Int", "lacks type Transcript.latencyMs: Int!"),
        ("analyses: [Analysis!]!", "analyses: [Analysis]!", "lacks type Run.analyses: [Analysis!]!"),
        (
            "recentTasks(limit: Int! = 5)",
            "recentTasks(limit: Int! = 6)",
            "lacks Run.recentTasks(limit: Int! = 5)",
        ),
        ("search: String)", "find: String)", "lacks Query.definitions(search: String)"),
        (
            "mode: CancelMode! = GRACEFUL",
            "mode: CancelMode!",
            "demands Mutation.cancelRun(mode: CancelMode!)",
        ),
        ("enum AnalysisKind { BASIC DEEP }", "enum AnalysisKind { BASIC }", "lacks enum AnalysisKind DEEP"),
        ("experimentId: ID\n  name", "name", "lacks input StartRunInput(experimentId: ID)"),
        (
            "idempotencyKey: String\n",
            "idempotencyKey: String!\n",
            "demands input StartRunInput(idempotencyKey: String!)",
        ),
        ("scalar Money", "", "lacks scalar Money"),
        ("pauseRun(id: ID!)", "pauseRun(id: ID!, why: String!)", "demands Mutation.pauseRun(why: String!)"),
    ];
    for (from, to, expected) in changes {
        let changed = CONTRACT.replacen(from, to, 1);
        assert_ne!(changed, CONTRACT, "{from:?} is not in the contract");
        let found = breaches(CONTRACT, &changed);
        assert!(found.iter().any(|b| b == expected), "{from:?} → {to:?}: {found:?}");
    }
    assert_eq!(
        breaches(CONTRACT, &format!("{CONTRACT}\ntype More {{ field(x: Int!): Int }}")),
        Vec::<String>::new()
    );
}

#[test]
fn the_committed_schema_is_that_of_the_program() {
    let committed = include_str!("../../schema/schema.graphql");
    assert!(committed == super::sdl(), "schema/schema.graphql is not up to date: run `make generate`");
}

#[test]
fn everything_is_described() {
    let mut bare = Vec::new();
    for definition in parse_schema(super::sdl()).unwrap().definitions {
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        let definition = definition.node;
        let name = definition.name.node.as_str();
        let mut look = |described: bool, what: String| {
            if !described {
                bare.push(what);
            }
        };
        look(definition.description.is_some(), name.to_owned());
        match &definition.kind {
            TypeKind::Object(object) => {
                for field in &object.fields {
                    look(field.node.description.is_some(), format!("{name}.{}", field.node.name.node));
                }
            }
            TypeKind::InputObject(input) => {
                for field in &input.fields {
                    look(field.node.description.is_some(), format!("{name}.{}", field.node.name.node));
                }
            }
            TypeKind::Enum(values) => {
                for value in &values.values {
                    look(value.node.description.is_some(), format!("{name} {}", value.node.value.node));
                }
            }
            _ => {}
        }
    }
    assert_eq!(bare, Vec::<String>::new());
}
