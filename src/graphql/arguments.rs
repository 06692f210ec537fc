//! The arguments of lists.

use async_graphql::{Context, Result};

use super::context::ContextExt;
use crate::domain::page::{Listed, PageRequest, parse_cursor};
use crate::domain::{Checker, request};
use crate::service;

/// The most that a list costs: the ceiling of the setting `RUNLANE_PAGE_MAX`.
const PAGE_COST_MAX: usize = 100;

/// What a list of up to `first` items costs, each of them `child_complexity`.
pub(super) fn list_cost(first: i32, child_complexity: usize) -> usize {
    let items = usize::try_from(first).unwrap_or(1).clamp(1, PAGE_COST_MAX);
    items.saturating_mul(child_complexity).saturating_add(1)
}

/// Reads `first` and `after` of a list of `T`.
///
/// # Errors
/// VALIDATION_ERROR for a `first` below 1 or an `after` that is no cursor of the list; both at once.
pub(super) fn page_request<T: Listed>(
    ctx: &Context<'_>,
    first: i32,
    after: Option<&str>,
) -> Result<PageRequest<T::Key>> {
    let limits = ctx.service()?.limits();
    let mut checker = Checker::new("", limits.mistakes_max);
    let limit = request::page_length(first, limits).unwrap_or_else(|errors| {
        checker.within("first", |c| c.error(errors.first().message.clone()));
        1
    });
    let after = after.map(parse_cursor::<T>).transpose().unwrap_or_else(|error| {
        checker.within("after", |c| c.error(error.to_string()));
        None
    });
    checker.finish().map_err(service::Error::from)?;
    Ok(PageRequest { limit, after, count: ctx.wants_total() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_costs_its_items_and_no_more_than_a_page() {
        assert_eq!(list_cost(50, 3), 151);
        assert_eq!(list_cost(i32::MAX, 3), 301);
        assert_eq!(list_cost(-1, 3), 4);
        assert_eq!(list_cost(100, usize::MAX), usize::MAX);
    }

    #[test]
    fn no_page_is_longer_than_a_list_may_cost() {
        let setting =
            crate::config::settings().into_iter().find(|s| s.variable == "RUNLANE_PAGE_MAX").unwrap();
        assert_eq!(setting.range, format!("1 to {PAGE_COST_MAX}"));
    }
}
