//! Relay connections over the domain's pages.

use std::borrow::Cow;

use async_graphql::{OutputType, SimpleObject, TypeName};

use crate::domain::page::{Listed, Page, cursor};

/// Where a page lies in its list.
#[derive(SimpleObject)]
pub(super) struct PageInfo {
    /// Whether more items follow.
    has_next_page: bool,
    /// Whether the page does not begin the list.
    has_previous_page: bool,
    /// The cursor of the first item; null on an empty page.
    start_cursor: Option<String>,
    /// The cursor of the last item: give it as `after` for the next page; null on an empty page.
    end_cursor: Option<String>,
}

/// An item of a list and where it stands.
#[derive(SimpleObject)]
#[graphql(name_type)]
pub(super) struct Edge<T: OutputType> {
    /// The place of the item: give it as `after` for the items beyond it.
    cursor: String,
    /// The item.
    node: T,
}

/// A page of a list.
#[derive(SimpleObject)]
#[graphql(name_type)]
pub(super) struct Connection<T: OutputType> {
    /// The items, each with its cursor.
    pub(super) edges: Vec<Edge<T>>,
    /// The items alone.
    pub(super) nodes: Vec<T>,
    /// Where the page lies in the list.
    pub(super) page_info: PageInfo,
    /// How long the whole list is; null when it is too long to be counted.
    pub(super) total_count: Option<i64>,
}

impl<T: OutputType> TypeName for Edge<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Edge", <T as OutputType>::type_name()).into()
    }
}

impl<T: OutputType> TypeName for Connection<T> {
    fn type_name() -> Cow<'static, str> {
        format!("{}Connection", <T as OutputType>::type_name()).into()
    }
}

impl<T: OutputType + Clone> Connection<T> {
    /// The page of what clients see of `V`.
    pub(super) fn new<V: Listed>(page: Page<V>, show: impl Fn(V) -> T) -> Self {
        let edges: Vec<Edge<T>> =
            page.items.into_iter().map(|view| Edge { cursor: cursor(&view), node: show(view) }).collect();
        Self {
            page_info: PageInfo {
                has_next_page: page.has_next,
                has_previous_page: page.has_previous,
                start_cursor: edges.first().map(|e| e.cursor.clone()),
                end_cursor: edges.last().map(|e| e.cursor.clone()),
            },
            nodes: edges.iter().map(|e| e.node.clone()).collect(),
            edges,
            total_count: page.total,
        }
    }
}
