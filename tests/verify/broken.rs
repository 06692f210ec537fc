//! Each rule, broken on purpose: exactly that is found.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Executor;

use super::aged::aged_database;
use crate::support::direct::Direct;

/// Breaks an aged database with `sql`; what is found must be this many violations of these checks.
async fn finds(sql: &'static str, expected: &[(&str, usize)]) {
    let direct = Direct::on(&aged_database().await).await;
    direct.db.execute(sql).await.unwrap();
    let found = direct.violations(false, &[]).await;
    let mut counts = BTreeMap::new();
    for violation in &found {
        *counts.entry(violation.check).or_insert(0_usize) += 1;
    }
    let expected: BTreeMap<&str, usize> = expected.iter().copied().collect();
    assert_eq!(counts, expected, "{found:#?}");
}

macro_rules! broken {
    ($($name:ident: $sql:literal => $expected:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                finds($sql, &$expected).await;
            }
        )*

        /// What some test above finds.
        fn broken() -> BTreeSet<&'static str> {
            let mut checks = BTreeSet::new();
            $(checks.extend($expected.iter().map(|(check, _)| *check));)*
            checks
        }
    };
}

broken! {
    a_model_without_a_lane:
        "update run set models = models || '{mock/other}' where status = 'PENDING'"
        => [("run_incomplete", 1)];
    lanes_of_different_sizes:
        "insert into job (lane_id, scenario_id, sample, run_at)
         select j.lane_id, j.scenario_id, 1, now() from current_job j where j.id = (select max(id) from current_job);
         update lane set pending = pending + 1, total = total + 1 where id = (select max(id) from lane)"
        => [("run_incomplete", 1)];
    an_epoch_without_the_failure_before_it:
        "update job set epoch = 2 where id = (select min(id) from current_job where epoch = 1)"
        => [("terminal_attempts", 1)];
    a_failure_on_record_of_a_job_that_waits:
        "update past_attempt set outcome = 'failed' where (job_id, number) in (
            select j.id, j.claims from current_job j where j.state = 'pending' and j.claims = 1 and j.failures = 1
             order by j.id desc limit 1)"
        => [("terminal_attempts", 1), ("attempt_path", 1)];
    a_job_that_completed_twice:
        "update past_attempt set outcome = 'completed', error_code = null where (job_id, number) in (
            select a.job_id, a.number from attempt a join current_job j on j.id = a.job_id
             where j.state = 'completed' and a.outcome = 'throttled');
         update job j set throttles = 0 where j.throttles > 0"
        => [("terminal_attempts", 1), ("attempt_path", 1)];
    a_failure_without_a_dead_letter:
        "delete from dead_letter where id = (select max(id) from dead_letter)"
        => [("dead_letters", 1)];
    a_dead_letter_of_a_job_that_waits:
        "insert into dead_letter (job_id, epoch, lane_id, run_id, definition_id, owner, kind, model, reason, error_code,
                                  error_message, fingerprint, original_state, snapshot, attempts)
         select j.id, 0, d.lane_id, d.run_id, d.definition_id, d.owner, d.kind, d.model, d.reason, d.error_code,
                d.error_message, d.fingerprint, 'active', '{}', '[]'
           from dead_letter d cross join current_job j
          where d.id = (select max(id) from dead_letter) and j.id = (select max(id) from current_job)"
        => [("dead_letters", 1)];
    a_job_that_was_given_up_and_waits:
        "update dead_letter set original_state = 'pending' where job_id = (select id from current_job where losses_alone = 3)"
        => [("terminal_attempts", 1)];
    a_claim_without_an_attempt:
        "update job set claims = claims + 1 where id = (select max(id) from current_job where state = 'pending' and claims = 1)"
        => [("attempt_numbers", 1)];
    a_gap_in_the_numbers:
        "update past_attempt set number = 4 where (job_id, number) in (select id, 3 from current_job where losses_alone = 3)"
        => [("attempt_numbers", 1)];
    an_epoch_that_begins_after_claims_that_never_were:
        "update job set epoch_claims = 1 where id = (select max(id) from current_job where claims = 0)"
        => [("attempt_path", 1)];
    a_run_that_went_where_none_goes:
        "select record_act('run.pending', 'run', r.id::text, r.id, '{\"status\": \"RUNNING\"}', '{\"status\": \"PENDING\"}'),
                record_act('run.running', 'run', r.id::text, r.id, '{\"status\": \"PENDING\"}', '{\"status\": \"RUNNING\"}')
           from run r where r.status = 'RUNNING'"
        => [("run_path", 1)];
    a_status_that_nobody_recorded:
        "alter table run disable trigger run_is_audited;
         update run set status = 'COMPLETED', cancel_mode = null where status = 'CANCELLED'"
        => [("run_path", 1), ("run_status", 1)];
    a_counter_that_is_off:
        "update lane set pending = pending - 1, completed = completed + 1 where id = (select max(id) from lane)"
        => [("lane_counters", 2)];
    a_failure_of_another_code:
        "update lane_error set error_code = 'unknown' where lane_id = (select max(lane_id) from lane_error)"
        => [("lane_errors", 2)];
    a_cost_that_no_transcript_has:
        "update lane set cost_usd = cost_usd + 0.000001 where id = (select min(id) from lane where cost_usd is not null)"
        => [("lane_cost", 1)];
    a_lane_that_is_paused_in_a_run_that_is_not:
        "update lane set is_paused = true where id = (select max(id) from lane)"
        => [("run_status", 1)];
    a_lane_that_runs_in_a_paused_run:
        "update lane set is_paused = false where is_paused"
        => [("run_status", 1)];
    a_run_that_is_over_though_jobs_wait:
        "update run set status = 'COMPLETED', completed_at = now() where status = 'RUNNING'"
        => [("run_status", 1)];
    a_lane_with_another_priority:
        "update lane set priority = 77 where id = (select max(id) from lane)"
        => [("run_status", 1)];
    a_run_that_has_not_begun_though_probes_were_claimed:
        "alter table run disable trigger run_is_audited;
         update run set status = 'PENDING', started_at = null where status = 'RUNNING'"
        => [("run_status", 1), ("run_path", 1)];
    a_throttle_that_nobody_recorded:
        "update job set throttles = throttles + 1 where id = (select max(id) from current_job)"
        => [("job_counters", 1)];
    a_failure_that_was_counted_as_a_loss:
        "update job set failures = failures - 1, losses = losses + 1
          where id = (select max(id) from current_job where state = 'pending' and failures = 1)"
        => [("job_counters", 1)];
    a_transcript_of_another_attempt:
        "update transcript set created_at = created_at - interval '1 second' where job_id = (select min(job_id) from transcript)"
        => [("transcript_current", 1)];
    a_transcript_of_a_job_that_waits:
        "insert into transcript (job_id, lane_id, scenario_id, turns, usage, latency_ms, created_at)
         select id, lane_id, scenario_id, '[]', '{}', 1, now() from current_job where id = (select max(id) from current_job)"
        => [("transcript_current", 1)];
    an_analysis_of_another_time:
        "update analysis set computed_at = computed_at - interval '1 second'
          where job_id = (select min(job_id) from analysis)"
        => [("analysis_current", 1)];
    a_completed_probe_without_a_transcript:
        "update lane l set cost_usd = l.cost_usd - t.cost_usd from transcript t
          where t.lane_id = l.id and t.job_id = (select min(job_id) from transcript);
         delete from transcript where job_id = (select min(job_id) from transcript)"
        => [("result_missing", 1)];
    a_completed_analysis_without_a_result:
        "delete from analysis where job_id = (select min(job_id) from analysis)"
        => [("result_missing", 1)];
    attempts_that_overlap:
        "update past_attempt a set started_at = a.started_at - interval '1 hour'
          where (a.job_id, a.number) in (select min(job_id), 2 from attempt where number = 2)"
        => [("attempts_overlap", 1)];
    an_attempt_that_ended_before_it_began:
        "update past_attempt a set started_at = a.ended_at + interval '1 second'
          where (a.job_id, a.number) in (select job_id, 1 from attempt where outcome = 'cancelled')"
        => [("attempts_overlap", 1), ("claim_in_closed_lane", 1)];
    active_jobs_of_a_node_that_is_gone:
        "delete from node"
        => [("active_without_node", 2)];
    active_jobs_that_nobody_rescues:
        "update node set lease_until = now() - interval '2 minutes';
         insert into node (id, name, version, started_at, lease_until, executes)
         values (gen_random_uuid(), 'other', '0', now() - interval '1 hour', now() + interval '1 hour', true)"
        => [("active_without_node", 2)];
    a_claim_while_the_queue_is_paused:
        "update queue_state set is_paused = true, paused_by = 'root',
                paused_at = (select max(claimed_at) - interval '1 microsecond' from current_job where state = 'active')"
        => [("claim_while_queue_paused", 2)];
    a_claim_while_the_queue_was_paused:
        "insert into audit (at, actor, action, subject_kind, subject_id)
         select c.at + s.shift, 'root', s.action, 'queue', 'queue'
           from (select max(claimed_at) as at from current_job where state = 'active') as c
          cross join (values (1, '-2 microseconds'::interval, 'pauseQueue'), (2, '-1 microsecond', 'pauseQueue'),
                             (3, '1 microsecond', 'resumeQueue')) as s (n, shift, action)
          order by s.n"
        => [("claim_while_queue_paused", 2)];
    a_claim_while_its_run_is_paused:
        "update run set paused_at = paused_at - interval '1 hour' where status = 'PAUSED'"
        => [("claim_while_run_paused", 2)];
    a_claim_while_its_run_was_paused:
        "insert into audit (at, actor, action, subject_kind, subject_id, run_id, before, after)
         select r.started_at + s.shift, 'ada', 'run.' || lower(s.after), 'run', r.id::text, r.id,
                jsonb_build_object('status', s.before), jsonb_build_object('status', s.after)
           from run r
          cross join (values (1, '-1 hour'::interval, 'RUNNING', 'PAUSED'), (2, '1 microsecond', 'PAUSED', 'RUNNING'))
                  as s (n, shift, before, after)
          where r.status = 'RUNNING' order by s.n"
        => [("claim_while_run_paused", 2)];
    a_claim_in_a_closed_lane:
        "update lane set closed_at = closed_at - interval '1 hour' where not is_open"
        => [("claim_in_closed_lane", 2)];
    a_claim_in_a_held_lane:
        "update lane set held_at = (select min(claimed_at) from current_job where state = 'active') - interval '1 microsecond',
                         hold_reason = 'test', hold_fingerprint = 'test'
          where id = (select lane_id from current_job where state = 'active' order by claimed_at limit 1)"
        => [("claim_in_held_lane", 2)];
    rows_that_were_to_be_rewritten_and_were_forgotten:
        "update lane set is_settled = true where not is_settled"
        => [("lane_settled", 1)];
    a_job_that_no_claim_would_find:
        "delete from waiting_job where job_id = (select min(job_id) from waiting_job)"
        => [("job_found", 1)];
    a_fresh_job_that_no_claim_would_find:
        "update lane l set fresh_until = j.id - 1
           from (select lane_id, max(id) as id from job where is_fresh group by lane_id order by 1 limit 1) as j
          where j.lane_id = l.id"
        => [("job_found", 1)];
    fresh_jobs_that_are_not_counted:
        "update lane set fresh = fresh - 1 where id = (select id from lane where fresh > 0 order by id limit 1)"
        => [("job_found", 1)];
    live_lanes_that_no_claim_would_look_at:
        "update live_mark set live_from = (select max(id) from lane where is_live)"
        => [("job_found", 3)];
    a_job_that_is_to_be_claimed_and_does_not_wait:
        "insert into waiting_job (lane_id, job_id, run_at)
         select lane_id, id, run_at from current_job where state = 'completed' order by id limit 1"
        => [("job_found", 1)];
    a_failed_job_that_no_list_would_show:
        "delete from ended_job where job_id = (select min(job_id) from ended_job where state = 'failed')"
        => [("job_found", 1)];
    an_active_job_that_nobody_would_find:
        "select set_config('runlane.follow', 'off', true);
         update job j set is_fresh = false, state = 'active', claims = 1, node_id = a.node_id, claimed_at = a.claimed_at
           from active_job a where a.id = j.id and a.id = (select min(id) from active_job)"
        => [("job_found", 1)];
    jobs_that_were_taken_by_nobody:
        "delete from claim"
        => [("active_without_node", 2), ("job_found", 2)];
    jobs_that_were_taken_twice:
        "insert into claim (node_id, claimed_at, jobs, lanes, unended)
         select node_id, claimed_at, jobs, lanes, unended from claim"
        => [("job_found", 2)];
    an_attempt_without_a_job:
        "insert into past_attempt (job_id, number, node_id, started_at, ended_at, outcome)
         values (999999, 1, gen_random_uuid(), now(), now(), 'released')"
        => [("rows_dangling", 1)];
    a_job_of_an_unknown_scenario:
        "update job set scenario_id = 999999 where id = (select max(id) from current_job)"
        => [("rows_dangling", 1)];
    a_transcript_without_a_job:
        "insert into transcript (job_id, lane_id, scenario_id, turns, usage, latency_ms, created_at)
         select 999999, max(lane_id), 1, '[]', '{}', 1, now() from current_job"
        => [("rows_dangling", 1)];
    an_analysis_without_its_job:
        "update analysis set job_id = 999999 where job_id = (select min(job_id) from analysis)"
        => [("rows_dangling", 1), ("result_missing", 1)];
    a_job_without_a_lane:
        "delete from lane where id = (select max(id) from lane)"
        => [("rows_dangling", 4), ("run_incomplete", 1)];
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_acknowledged_and_is_not_there() {
    let direct = Direct::on(&aged_database().await).await;
    let lost = runlane::domain::ids::new_id();
    let found = direct.violations(false, &[lost]).await;
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].check, found[0].subject.as_str()), ("run_missing", format!("run {lost}").as_str()));
}

#[test]
fn every_rule_is_broken_by_a_test() {
    let elsewhere = ["run_missing", "job_unfinished", "run_unfinished"];
    let tested: BTreeSet<&str> = broken().into_iter().chain(elsewhere).collect();
    let rules: BTreeSet<&str> = runlane::store::rules().map(|rule| rule.check).collect();
    assert_eq!(tested, rules);
    assert_eq!(rules.len(), runlane::store::rules().count(), "names are unique");
}
