//! Limits on what may be spent in a period, and on who may use which provider.

use std::sync::Arc;
use std::time::Duration;

use runlane::app::authority;
use runlane::config::Config;
use runlane::domain::clock::SystemClock;
use runlane::domain::{JobKind, Role};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{amount, claimed_together, mock_prices, violations};
use crate::support::app::{Answer, Cluster, PATIENCE, fresh_database};
use crate::support::direct::Direct;

const PROBE: JobKind = JobKind::ProbeScenario;
const SET: &str = "mutation($scope: SpendScope!, $key: String, $usd: Money, $period: SpendPeriod!) {
    setSpendLimit(scope: $scope, key: $key, usd: $usd, period: $period) { limitUsd leftUsd } }";
const SPEND: &str = "query($scope: SpendScope!, $key: String) {
    spend(scope: $scope, key: $key, period: DAY) { key spentUsd reservedUsd limitUsd leftUsd } }";
const WAITING: &str = "query($id: ID!) { run(id: $id) { status costUsd progress { pending active completed }
    jobs(first: 1, filter: { status: [PENDING] }) { nodes { waitingBecause } } } }";
const START: &str = "mutation($input: StartRunInput!) { startRun(input: $input) { id } }";

async fn set_limit(cluster: &Cluster, scope: &str, key: Option<&str>, usd: Option<&str>) {
    let variables = json!({ "scope": scope, "key": key, "usd": usd, "period": "DAY" });
    cluster.admin(SET, variables).await.data();
}

/// A token of a user in a group.
fn token_in(cluster: &Cluster, subject: &str, group: &str) -> String {
    let config = Config::from_lookup(&|name| cluster.environment().get(name).cloned()).unwrap();
    let authority = authority(&config, Arc::new(SystemClock)).unwrap();
    authority.issue_in(subject, Role::User, Some(group), Duration::from_secs(3_600)).unwrap()
}

async fn start_as(cluster: &Cluster, token: &str, definition: &str) -> Answer {
    let input = json!({ "definitionId": definition, "models": ["mock/rater"] });
    cluster.send(Some(token), START, json!({ "input": input })).await
}

async fn priced(nodes: usize) -> Cluster {
    let prices = mock_prices("1000", "1000");
    let mut cluster = Cluster::api_only(&[
        ("RUNLANE_PRICES_FILE", prices.to_str().unwrap()),
        ("RUNLANE_EXPECTED_OUTPUT_TOKENS", "100"),
        ("RUNLANE_WORKER_CONCURRENCY", "4"),
        ("RUNLANE_POLL_INTERVAL_MS", "200"),
    ])
    .await;
    for _ in 0..nodes {
        cluster.add_node(&[]).await;
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn four_nodes_stay_within_a_users_limit_and_what_waits_says_so_until_it_is_raised() {
    let cluster = priced(4).await;
    let definition = cluster.definition(50).await;
    set_limit(&cluster, "USER", Some("ada"), Some("0.7")).await;
    let run = cluster.run(&definition, &["mock/rater"], json!({})).await;
    // Between two claims nothing runs either: at the limit is what waits for it while nothing runs and nothing changes.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let state = loop {
        let before = cluster.state(&run).await;
        let seen = cluster.user(WAITING, json!({ "id": run })).await.data()["run"].clone();
        let after = cluster.state(&run).await;
        let why = seen["jobs"]["nodes"][0]["waitingBecause"].as_str().unwrap_or_default().to_owned();
        if why.starts_with("The spend limit of $0.7 a day for the user ada is reached")
            && before["progress"]["active"] == 0
            && before["progress"] == after["progress"]
        {
            assert_eq!(seen["status"], "RUNNING", "nobody has paused it");
            assert!(why.contains("T00:00:00Z"), "until when: {why}");
            break after;
        }
        assert!(tokio::time::Instant::now() < deadline, "not at its limit: {why} {after:#}");
    };
    let spent = amount(&state["costUsd"]);
    let limit = Decimal::new(7, 1);
    assert!(spent <= limit && spent > limit / Decimal::from(3), "{state:#}");

    // Another user's runs go on beside it.
    let other = json!({ "definitionId": definition, "models": ["mock/echo"] });
    let other = cluster.ask("bob", Role::User, START, json!({ "input": other })).await;
    cluster.until_status(other.data()["startRun"]["id"].as_str().unwrap(), "COMPLETED").await;
    assert_eq!(cluster.state(&run).await["progress"]["completed"], state["progress"]["completed"]);

    set_limit(&cluster, "USER", Some("ada"), Some("1000")).await;
    let done = cluster.until_status(&run, "COMPLETED").await;
    let told = cluster.user(SPEND, json!({ "scope": "USER" })).await.data()["spend"].clone();
    assert_eq!(
        (amount(&told["spentUsd"]), amount(&told["reservedUsd"])),
        (amount(&done["costUsd"]), Decimal::ZERO)
    );
    assert_eq!(amount(&told["leftUsd"]), Decimal::from(1000) - amount(&done["costUsd"]));
    assert_eq!(violations(&cluster).await, []);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_refused_when_a_limit_of_its_user_group_or_installation_is_reached() {
    let cluster = priced(1).await;
    let definition = cluster.definition(3).await;
    let (ada, eve) = (token_in(&cluster, "ada", "blue"), token_in(&cluster, "eve", "red"));
    let run =
        start_as(&cluster, &ada, &definition).await.data()["startRun"]["id"].as_str().unwrap().to_owned();
    let cost = amount(&cluster.until_status(&run, "COMPLETED").await["costUsd"]);
    for (scope, key) in [("USER", Some("ada")), ("GROUP", Some("blue")), ("INSTALLATION", None)] {
        set_limit(&cluster, scope, key, Some(&cost.to_string())).await;
        let answer = start_as(&cluster, &ada, &definition).await;
        assert_eq!(answer.code(), "QUEUE_ERROR", "{scope}");
        let refusal = answer.refusal();
        assert_eq!((&refusal["reason"], &refusal["scope"]), (&json!("SPEND_LIMIT"), &json!(scope)));
        // Eve's runs are the installation's as well.
        let all = if scope == "INSTALLATION" { cost * Decimal::from(3) } else { cost };
        assert_eq!(amount(&refusal["spentUsd"]), all, "{scope}");
        let others = start_as(&cluster, &eve, &definition).await;
        assert_eq!(others.body.get("errors").is_some(), scope == "INSTALLATION", "{scope}: {}", others.body);
        if let Some(id) = others.body["data"]["startRun"]["id"].as_str() {
            cluster.until_status(id, "COMPLETED").await;
        }
        set_limit(&cluster, scope, key, None).await;
    }
    start_as(&cluster, &ada, &definition).await.data();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_price_is_refused_while_there_is_a_limit_unless_nobody_is_billed() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(1).await;
    set_limit(&cluster, "INSTALLATION", None, Some("5")).await;
    let answer = cluster.start_run(&definition, &["mock/echo", "openai/nobody-knows"], json!({})).await;
    assert_eq!((answer.code(), &answer.refusal()["field"]), ("VALIDATION_ERROR", &json!("input.models")));
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_what_they_spend_and_admins_alone_limit_it() {
    let cluster = Cluster::api_only(&[]).await;
    let of = |scope, key| json!({ "scope": scope, "key": key });
    assert_eq!(cluster.user(SPEND, of("USER", Some("bob"))).await.data()["spend"], Value::Null);
    assert_eq!(cluster.user(SPEND, of("INSTALLATION", None)).await.data()["spend"], Value::Null);
    assert_eq!(cluster.user(SPEND, of("USER", None)).await.data()["spend"]["key"], "ada");
    assert_eq!(cluster.admin(SPEND, of("USER", Some("bob"))).await.data()["spend"]["spentUsd"], "0");
    let set =
        |scope: &str, key, usd: &str| json!({ "scope": scope, "key": key, "usd": usd, "period": "MONTH" });
    assert_eq!(cluster.user(SET, set("USER", Some("ada"), "5")).await.code(), "FORBIDDEN");
    for (wrong, field) in [
        (set("USER", None, "5"), "key"),
        (set("INSTALLATION", Some("x"), "5"), "key"),
        (set("USER", Some("ada"), "-1"), "usd"),
    ] {
        let answer = cluster.admin(SET, wrong).await;
        assert_eq!((answer.code(), &answer.refusal()["field"]), ("VALIDATION_ERROR", &json!(field)));
    }
    set_limit(&cluster, "USER", Some("bob"), Some("1")).await;
    set_limit(&cluster, "USER", Some("ada"), Some("2")).await;
    let limits = "{ spendLimits { key limitUsd } }";
    let seen = cluster.user(limits, json!({})).await.data()["spendLimits"].clone();
    assert_eq!(seen, json!([{ "key": "ada", "limitUsd": "2" }]));
    assert_eq!(cluster.admin(limits, json!({})).await.data()["spendLimits"].as_array().unwrap().len(), 2);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_for_the_roles_that_an_admin_says() {
    let cluster = Cluster::api_only(&[]).await;
    let definition = cluster.definition(1).await;
    let set = "mutation($provider: String!, $roles: [Role!]) {
        setProviderRoles(provider: $provider, roles: $roles) { provider roles } }";
    let only_admins = json!({ "provider": "mock", "roles": ["ADMIN"] });
    assert_eq!(cluster.user(set, only_admins.clone()).await.code(), "FORBIDDEN");
    let unknown = cluster.admin(set, json!({ "provider": "nobody", "roles": [] })).await;
    assert_eq!(unknown.refusal()["field"], "provider");
    cluster.admin(set, only_admins).await.data();
    let refused = cluster.start_run(&definition, &["mock/echo"], json!({})).await;
    assert_eq!(refused.code(), "FORBIDDEN");
    assert!(refused.body.to_string().contains("provider mock"), "{}", refused.body);
    let input = json!({ "input": { "definitionId": definition, "models": ["mock/echo"] } });
    cluster.admin(START, input).await.data();
    let seen = cluster.user("{ providerRoles { provider roles } }", json!({})).await.data().clone();
    assert_eq!(seen["providerRoles"], json!([{ "provider": "mock", "roles": ["ADMIN"] }]));
    cluster.admin(set, json!({ "provider": "mock", "roles": null })).await.data();
    cluster.run(&definition, &["mock/echo"], json!({})).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_claim_at_once_share_one_limit() {
    let direct = Direct::on(&fresh_database().await).await;
    sqlx::query("insert into spend_limit (scope, key, period, usd, set_by) values ('USER', 'ada', 'DAY', 0.155, 'test')")
        .execute(&direct.db)
        .await
        .unwrap();
    let definition = direct.definition(20).await;
    direct.start(definition, &["mock/echo"], None).await;
    direct.start(definition, &["openai/echo"], None).await;
    sqlx::query("update lane set estimate_usd = 0.01").execute(&direct.db).await.unwrap();
    assert_eq!(claimed_together(&direct).await, (8, 7), "fifteen cents and a half, of two runs");
    let node = direct.node().await;
    let asked = direct.store.claim_jobs(node, &[(PROBE, 8)]).await.unwrap();
    assert!(asked.claims().is_empty(), "all of it is set aside: {asked:?}");
    assert_ne!(asked.look_after, Some(Duration::ZERO), "it would ask again and again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_and_a_month_begin_at_midnight_utc_with_nothing_spent() {
    let direct = Direct::on(&fresh_database().await).await;
    sqlx::query(
        "insert into spend_day (day, owner, group_name, node_id, usd)
         select d::date, 'ada', g, gen_random_uuid(), 1
           from unnest(array['2026-01-31', '2026-02-01', '2026-02-28', '2026-03-01']) as d
          cross join unnest(array['', 'blue']) as g",
    )
    .execute(&direct.db)
    .await
    .unwrap();
    let spent = async |scope: &str, key: &str, period: &str, at: &str| -> Decimal {
        sqlx::query_scalar("select spent from spend_of($1, $2, $3, $4::text::timestamptz)")
            .bind(scope)
            .bind(key)
            .bind(period)
            .bind(at)
            .fetch_one(&direct.db)
            .await
            .unwrap()
    };
    assert_eq!(spent("USER", "ada", "MONTH", "2026-02-28T23:59:59Z").await, Decimal::from(4));
    assert_eq!(spent("USER", "ada", "MONTH", "2026-03-01T00:00:00Z").await, Decimal::from(2));
    assert_eq!(spent("USER", "ada", "DAY", "2026-02-28T23:59:59Z").await, Decimal::from(2));
    assert_eq!(spent("USER", "ada", "DAY", "2026-02-27T23:59:59Z").await, Decimal::ZERO);
    assert_eq!(spent("GROUP", "blue", "MONTH", "2026-02-02T00:00:00Z").await, Decimal::from(2));
    assert_eq!(spent("INSTALLATION", "", "DAY", "2026-02-01T12:00:00Z").await, Decimal::from(2));
    assert_eq!(spent("USER", "bob", "MONTH", "2026-02-02T00:00:00Z").await, Decimal::ZERO);
}
