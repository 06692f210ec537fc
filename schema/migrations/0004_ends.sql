-- How claims end: in batches, by the node that holds them or by one that finds it dead. Locks as in 0003_claims.sql.

-- What becomes of a job whose claim ends so: nothing is retried in a closed lane, nor when somebody asked for the job to be
-- cancelled.
create function ended_state(p_outcome attempt_outcome, p_is_open boolean, p_cancel_requested boolean) returns job_state
language sql immutable as $$
    -- Constants only, or it would not be inlined.
    select case when p_outcome = 'completed' then 'completed'::job_state
                when p_outcome = 'failed' or p_outcome = 'retried' and not p_is_open then 'failed'::job_state
                when p_outcome = 'cancelled' or not p_is_open or p_cancel_requested then 'cancelled'::job_state
                else 'pending'::job_state end
$$;

-- Locks lanes and those of the same runs that their ends may change: the basic analyses, which the end of a run has computed,
-- and all lanes of a run with a guard, which counts over them. Later it is too late to keep the order. What the caller does not
-- know of the lanes, their runs and whether any of these is guarded, is looked up.
create function lock_lanes_of_ends(p_lanes bigint[], p_runs uuid[] default null, p_is_guarded boolean default null)
returns void language plpgsql
set enable_seqscan = off
as $$
declare
    v_ids bigint[];
begin
    if p_runs is null then
        select array_agg(distinct l.run_id), bool_or(l.is_guarded) into p_runs, p_is_guarded
          from lane l where l.id = any (p_lanes);
    end if;
    v_ids := array(
        select unnest(p_lanes)
        union
        select a.id from lane a where a.run_id = any (p_runs) and a.kind = 'analyze:basic');
    if p_is_guarded then
        v_ids := v_ids || array(select a.id from lane a where a.run_id = any (p_runs) and a.is_guarded);
    end if;
    perform from lane l where l.id = any (v_ids) order by l.id for update;
end
$$;

-- Jobs whose claims ended alike, at once. The reason is why they gave up, if they did.
create type ended_alike as (
    lane_id bigint, run_id uuid, is_guarded boolean, claim_id bigint, state job_state, error_code text, reason text,
    jobs bigint[], n int, cost_usd numeric
);

-- Ends claims of one node: jobs, attempts, transcripts, analyses, counters and runs in one transaction. Returns the jobs
-- whose claim was still the node's; every other result comes too late and changes nothing. All arrays are parallel; no
-- outcomes mean that all have completed, and from p_delay_ms on null stands for an array of nothing but nulls, false or 0.
--
-- What becomes of a job depends on its lane, which is locked first. A probe that completed is completed, whatever becomes of
-- its lane: where all are such, the lanes are locked only to be counted in, so that others claim from them meanwhile. The gate
-- and the node keep away who locks in the other order: people's changes of lanes and jobs, and the rescue of this node's jobs.
create function end_attempts(
    p_node uuid,
    p_job bigint[],
    p_number int[],
    p_outcome attempt_outcome[],
    -- How long a job that goes back waits, in milliseconds.
    p_delay_ms bigint[],
    p_error_code text[],
    p_error_message text[],
    p_retryable boolean[],
    p_stderr text[],
    p_usage jsonb[],
    -- Of a completed analysis: its result, as the worker protocol has it.
    p_result jsonb[],
    -- Of a lost one: whether it must run alone from now on.
    p_suspect boolean[],
    -- Whether the worker died while this was its only job: counts a loss, also where the job gives up.
    p_alone boolean[],
    -- Of a crash that the job may have caused: what it looked like.
    p_fingerprint text[] default null,
    -- How many jobs of a lane may crash alone in the same way before the lane is held; null holds none.
    p_crash_hold_jobs int default null,
    -- Of a rate_limit, auth or quota_exhausted: whether it holds the limit or the provider concerned.
    p_holds boolean[] default null,
    -- US dollars for its usage, where the worker knows better than the lane's prices.
    p_cost_usd numeric[] default null,
    -- Of a completed probe: its transcript, whose usage is p_usage.
    p_turns json[] default null,
    p_model_version text[] default null,
    p_score int[] default null,
    p_latency_ms int[] default null,
    -- The node's claims that hold these jobs; null when it does not know, and all that it has are looked through.
    p_claims bigint[] default null
)
returns table (job_id bigint, state job_state) language plpgsql
-- See claim_jobs.
set enable_nestloop = off
set jit = off
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
    v_now      timestamptz;
    v_is_late  boolean := false;
    v_lanes    bigint[];
    v_claims   bigint[];
    v_ended    ended_alike[];
    v_of_claim bigint[];
    v_states   job_state[];
    v_runs     uuid[];
    v_is_guarded boolean;
    v_has_room boolean;
    -- Runs of which a lane of probes is empty now, and analyses that have ended.
    v_drained  uuid[];
    v_analyses bigint[];
    v_again    uuid[];
    v_limited  boolean;
begin
    if p_outcome is null or 'completed' = all (p_outcome) then
        perform pg_advisory_xact_lock_shared(gate());
        perform from node n where n.id = p_node for key share;
        -- All of them probes: an analysis has no latency.
        v_is_late := found and p_latency_ms is not null and array_position(p_latency_ms, null) is null;
    end if;
    v_limited := lock_limits_of(p_job, p_error_code, p_holds);
    v_claims := coalesce(p_claims, array(select c.id from claim c where c.node_id = p_node));
    if v_is_late then
        -- Those of the claims: cheaper than to look each job up.
        v_lanes := array(select distinct t.lane_id from claim c cross join lateral unnest(c.lanes) as t (lane_id)
                          where c.id = any (v_claims));
    else
        v_lanes := array(select distinct j.lane_id from job j where j.id = any (p_job));
        perform lock_lanes_of_ends(v_lanes);
    end if;
    v_now := clock_timestamp();

    with input as (
        -- What is wide is looked up where it is needed: the parameters are expanded arrays, and a row carries its place.
        select t.id, t.number, coalesce(t.outcome, 'completed') as outcome, t.at
          from unnest(p_job, p_number, p_outcome) with ordinality as t (id, number, outcome, at)
    ), taken as (
        select c.id, c.claimed_at, t.job_id from claim c cross join lateral unnest(c.jobs) as t (job_id)
         where c.id = any (v_claims) and c.node_id = p_node
    ), fenced as (
        -- The fence: of claims that are not the node's any more nothing is found. The row of a job that was claimed once and has
        -- not ended says nothing of that; the node's claims do.
        update job j
           set state = ended_state(i.outcome, l.is_open, j.cancel_requested),
               is_fresh = false, claims = i.number,
               claim_id = case when j.is_fresh then t.id else j.claim_id end,
               claimed_at = case when j.is_fresh then t.claimed_at else j.claimed_at end,
               node_id = case when i.outcome = 'completed' and l.kind = 'probe:scenario' then p_node end,
               finished_at = case when ended_state(i.outcome, l.is_open, j.cancel_requested) <> 'pending' then v_now end,
               -- Without a wait a job keeps its place, unless it crashed a worker: those that may be innocent go before it.
               run_at = case when ended_state(i.outcome, l.is_open, j.cancel_requested) = 'pending'
                                  and (p_delay_ms[i.at] > 0 or p_alone[i.at])
                             then v_now + coalesce(p_delay_ms[i.at], 0) * interval '1 millisecond' else j.run_at end,
               waits_since = case when ended_state(i.outcome, l.is_open, j.cancel_requested) = 'pending' then v_now
                                  else j.waits_since end,
               failures = j.failures + (i.outcome in ('failed', 'retried') and p_alone[i.at] is not true)::int,
               losses = j.losses + (i.outcome = 'lost' or p_alone[i.at] is true)::int,
               losses_alone = j.losses_alone + (p_alone[i.at] is true)::int,
               throttles = j.throttles + (i.outcome = 'throttled')::int,
               throttled_ms = j.throttled_ms + case when i.outcome = 'throttled' then coalesce(p_delay_ms[i.at], 0) else 0 end,
               -- Whoever has answered is no suspect any more.
               is_suspect = case when i.outcome = 'lost' then j.is_suspect or p_suspect[i.at] is true
                                 when i.outcome = 'released' then j.is_suspect
                                 else false end,
               error_code = case i.outcome when 'released' then j.error_code else p_error_code[i.at] end,
               error_message = case i.outcome when 'released' then j.error_message else p_error_message[i.at] end,
               error_retryable = case i.outcome when 'released' then j.error_retryable else p_retryable[i.at] end
          from input i left join taken t on t.job_id = i.id cross join lane l
         where j.id = i.id and j.id = any (p_job) and l.id = j.lane_id and l.id = any (v_lanes)
           and case when j.is_fresh then t.id is not null and i.number = 1
                    else j.claims = i.number and j.state = 'active' and j.node_id = p_node end
        returning j.id, j.lane_id, j.scenario_id, j.claim_id, j.claimed_at, j.state, l.run_id, l.kind, l.is_guarded, i.number,
                  i.at, i.outcome = 'retried' as is_cut_short,
                  -- Nothing is retried in a closed lane.
                  case when i.outcome = 'retried' and not l.is_open then 'failed' else i.outcome end as outcome,
                  case when l.kind = 'probe:scenario' then coalesce(
                      p_cost_usd[i.at],
                      case when l.pricing is not null then usage_cost(p_usage[i.at], l.pricing) end)
                  end as cost_usd
    ), recorded as (
        insert into past_attempt
               (job_id, number, node_id, started_at, ended_at, outcome, error_code, error_message, stderr_tail, usage,
                fingerprint, cost_usd)
        select f.id, f.number, p_node, f.claimed_at, v_now, f.outcome, p_error_code[f.at], p_error_message[f.at],
               p_stderr[f.at], p_usage[f.at], p_fingerprint[f.at], f.cost_usd
          from fenced f
         -- What completed a probe stands in its row.
         where f.outcome <> 'completed' or f.kind <> 'probe:scenario'
    ), transcribed as (
        insert into transcript
               (job_id, lane_id, scenario_id, model_version, turns, usage, score, cost_usd, latency_ms, created_at)
        select f.id, f.lane_id, f.scenario_id, p_model_version[f.at], p_turns[f.at], p_usage[f.at], p_score[f.at], f.cost_usd,
               p_latency_ms[f.at], v_now
          from fenced f
         where f.state = 'completed' and f.kind = 'probe:scenario'
    ), analysed as (
        insert into analysis as a (run_id, kind, job_id, result, coverage, warnings, computed_at)
        select f.run_id, f.kind, f.id, p_result[f.at], p_result[f.at] -> 'coverage',
               array(select jsonb_array_elements_text(p_result[f.at] -> 'warnings')), v_now
          from fenced f
         where f.state = 'completed' and f.kind <> 'probe:scenario' and p_result[f.at] is distinct from '{"unchanged": true}'
        on conflict (run_id, kind) do update
           set (job_id, result, coverage, warnings, computed_at, cached_from) =
               (excluded.job_id, excluded.result, excluded.coverage, excluded.warnings, excluded.computed_at, null)
    ), confirmed as (
        update analysis a
           set job_id = f.id, cached_from = coalesce(a.cached_from, a.computed_at), computed_at = v_now
          from fenced f
         where a.run_id = f.run_id and a.kind = f.kind and f.state = 'completed' and p_result[f.at] = '{"unchanged": true}'
           -- Without it, all analyses would be read.
           and a.run_id = any (array(select u.run_id from fenced u where u.kind <> 'probe:scenario'))
    )
    select array_agg((e.lane_id, e.run_id, e.is_guarded, e.claim_id, e.state, e.error_code, e.reason, e.jobs, e.n,
                      e.cost_usd)::ended_alike)
      into v_ended
      from (
        select f.lane_id, f.run_id, f.is_guarded, f.claim_id, f.state, p_error_code[f.at] as error_code,
               case when f.state <> 'failed' then null
                    when p_alone[f.at] then 'crash_loop'
                    when p_retryable[f.at] and not f.is_cut_short then 'max_retries_exceeded'
                    else 'non_retryable' end as reason,
               array_agg(f.id) as jobs, count(*)::int as n, sum(f.cost_usd) as cost_usd
          from fenced f
         group by 1, 2, 3, 4, 5, 6, 7
      ) as e;
    -- What comes too late changes nothing: from here on only the lanes that moved count.
    if v_ended is null then
        return;
    end if;
    return query select unnest(e.jobs), e.state from unnest(v_ended) as e;
    select array_agg(distinct e.lane_id), array_agg(distinct e.run_id), bool_or(e.is_guarded), array_agg(distinct e.claim_id),
           array_agg(distinct e.state)
      into v_lanes, v_runs, v_is_guarded, v_of_claim, v_states
      from unnest(v_ended) as e;

    if v_is_late then
        perform lock_lanes_of_ends(v_lanes, v_runs, v_is_guarded);
    end if;
    -- Of two that end jobs of one claim, the second counts down from what the first left.
    perform from claim c where c.id = any (v_of_claim) order by c.id for update;
    v_now := clock_timestamp();
    with ended as materialized (
        select * from unnest(v_ended) as e
    ), of_claim as (
        select e.claim_id, sum(e.n) as n from ended e group by e.claim_id
    ), counted_down as (
        update claim c set unended = c.unended - e.n from of_claim e
         where c.id = e.claim_id and c.id = any (v_of_claim) and c.unended > e.n
    ), over as (
        delete from claim c using of_claim e where c.id = e.claim_id and c.id = any (v_of_claim) and c.unended <= e.n
    ), of_lane as materialized (
        select e.lane_id, sum(e.n) as n,
               coalesce(sum(e.n) filter (where e.state = 'pending'), 0) as pending,
               coalesce(sum(e.n) filter (where e.state = 'completed'), 0) as completed,
               coalesce(sum(e.n) filter (where e.state = 'failed'), 0) as failed,
               coalesce(sum(e.n) filter (where e.state = 'cancelled'), 0) as cancelled,
               sum(e.cost_usd) as cost_usd
          from ended e
         group by e.lane_id
    ), moved as (
        update lane l
           set active = l.active - e.n,
               pending = l.pending + e.pending,
               completed = l.completed + e.completed,
               failed = l.failed + e.failed,
               cancelled = l.cancelled + e.cancelled,
               is_live = l.pending + e.pending + l.active - e.n > 0,
               cost_usd = case when e.cost_usd is null then l.cost_usd else coalesce(l.cost_usd, 0) + e.cost_usd end,
               version = l.version + 1, updated_at = v_now
          from of_lane e
         where l.id = e.lane_id and l.id = any (v_lanes)
        returning l.id, l.run_id, l.kind, l.is_live, l.is_guarded, l.budget_usd, e.completed, e.failed, e.cost_usd
    ), blamed as (
        insert into lane_error as x (lane_id, error_code, failed)
        select e.lane_id, e.error_code, sum(e.n) from ended e where e.state = 'failed'
         group by e.lane_id, e.error_code order by 1, 2
        on conflict (lane_id, error_code) do update set failed = x.failed + excluded.failed
    ), spent as (
        insert into spend_day as d (day, owner, group_name, node_id, usd)
        select (v_now at time zone 'UTC')::date, r.created_by, coalesce(r.created_group, ''), p_node, sum(m.cost_usd)
          from moved m join run r on r.id = m.run_id and r.id = any (array(select m.run_id from moved m where m.cost_usd > 0))
         where m.cost_usd > 0
         group by r.created_by, coalesce(r.created_group, '') order by 2, 3
        on conflict (day, owner, group_name, node_id) do update set usd = d.usd + excluded.usd
    ), ticked as (
        insert into queue_minute as q (minute, kind, node_id, completed, failed)
        select date_trunc('minute', v_now), m.kind, p_node, sum(m.completed), sum(m.failed)
          from moved m where m.completed + m.failed > 0
         group by m.kind order by m.kind
        on conflict (minute, kind, node_id) do update
           set completed = q.completed + excluded.completed, failed = q.failed + excluded.failed
    )
    -- What there is to know of these lanes is told here: beside an old snapshot each look at them passes all that they have been.
    select bool_or(m.is_guarded), bool_or(m.budget_usd is not null and m.is_live),
           array_agg(distinct m.run_id) filter (where m.kind = 'probe:scenario' and not m.is_live),
           array_agg(m.id) filter (where m.kind = 'analyze:basic' and not m.is_live)
      into v_is_guarded, v_has_room, v_drained, v_analyses
      from moved m;

    if v_limited then
        perform settle_limits(array(select unnest(e.jobs) from unnest(v_ended) as e), v_lanes, p_job,
                              coalesce(p_outcome, array_fill('completed'::attempt_outcome, array[cardinality(p_job)])),
                              p_error_code, p_error_message, p_delay_ms, p_usage, p_holds, v_now);
    end if;
    if 'failed' = any (v_states) then
        perform bury(array_agg(j), array_agg(e.reason::dlq_reason), 'active', '{}')
           from unnest(v_ended) as e cross join lateral unnest(e.jobs) as j
          where e.state = 'failed';
    end if;
    if true = any (p_alone) then
        perform hold_crashing_lanes(p_job, p_number, p_alone, p_crash_hold_jobs);
    end if;

    if v_is_guarded then
        perform guard_runs(v_lanes);
        -- It may have ended what was left in some.
        v_drained := array(select distinct l.run_id from lane l
                            where l.id = any (v_lanes) and l.kind = 'probe:scenario' and not l.is_live);
    end if;
    if v_drained <> '{}' then
        perform finish_runs(v_drained);
    end if;
    -- A basic analysis that began before the last probe ended has not seen everything: compute it anew. A cancelled run
    -- ends before its last probe does.
    if v_analyses is not null then
        v_again := array(
            select l.run_id from lane l
             where l.id = any (v_analyses) and not l.is_live
               -- One by one, by keys: joined, all runs, lanes and jobs would be read.
               and (select j.claimed_at from job j where j.lane_id = l.id and j.state = 'completed')
                   < (select greatest(r.completed_at, (
                                select max(p.updated_at) from lane p
                                 where p.run_id = l.run_id and p.kind = 'probe:scenario'))
                        from run r where r.id = l.run_id and r.completed_at is not null)
               and (select count(*) filter (where p.is_live) from lane p
                     where p.run_id = l.run_id and p.kind = 'probe:scenario') = 0);
        perform start_analysis(r, 'analyze:basic') from unnest(v_again) as r;
    end if;

    -- What goes back may be for another node to run, and so may what a node leaves behind that takes nothing more, and what
    -- a budget has room for again.
    if 'pending' = any (v_states) or v_has_room
       or exists (select from node n where n.id = p_node and n.is_draining) then
        perform pg_notify('runlane_wake', '');
    end if;
end
$$;

-- Gives claims of a node back to the queue because a person said so; burns nothing. Returns those that it still held.
create function release_claims(p_node uuid, p_job bigint[], p_number int[])
returns table (job_id bigint, state job_state) language sql as $$
    select e.job_id, e.state
      from cardinality(p_job) as n
     cross join lateral end_attempts(
        p_node, p_job, p_number, array_fill('released'::attempt_outcome, array[n]),
        null, null, null, null, null, null, null, null, null) as e
     where n > 0
$$;
