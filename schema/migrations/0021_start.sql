-- The transaction that starts a run: one call instead of a round trip for each step.

-- Makes a run, its lanes and its jobs, in the name of p_actor if there is one. It is refused (constraint
-- user_waiting_jobs_max) when more than p_waiting_max jobs of its creator wait with it. p_scenarios is the sample; null: all of
-- the definition's. p_pricing and p_estimates_usd go with p_models, and so does the order of the lanes.
create function start_run(
    p_actor text, p_role text, p_request_id text,
    p_run uuid, p_batch uuid, p_request text, p_definition uuid, p_snapshot jsonb, p_name text, p_experiment text,
    p_params jsonb, p_priority smallint, p_max_concurrency int,
    p_sample_percentage smallint, p_sample_seed int, p_sample_algorithm text, p_scenarios bigint[],
    p_idempotency_key text, p_input_hash bytea, p_metadata jsonb, p_created_by text, p_created_group text,
    p_models text[], p_pricing jsonb[], p_estimates_usd numeric[],
    p_budget_usd numeric, p_on_budget text, p_max_failure_rate float8, p_min_finished int, p_on_failure_rate text,
    p_expected_ms float8, p_expected_usd numeric, p_output_tokens int, p_waiting_max bigint
) returns void language plpgsql as $$
declare
    v_jobs bigint;
begin
    if p_actor is not null then
        perform set_config('runlane.actor', p_actor, true), set_config('runlane.role', p_role, true),
                set_config('runlane.request_id', p_request_id, true);
    end if;

    insert into run (id, batch_id, request_id, definition_id, definition_snapshot, name, experiment_id, models, params,
                     priority, max_concurrency, sample_percentage, sample_seed, sample_algorithm, idempotency_key,
                     input_hash, metadata, created_by, created_group, budget_usd, on_budget, max_failure_rate,
                     min_finished, on_failure_rate, expected_ms, expected_usd)
    values (p_run, p_batch, p_request, p_definition, p_snapshot, p_name, p_experiment, p_models, p_params,
            p_priority, p_max_concurrency, p_sample_percentage, p_sample_seed, p_sample_algorithm, p_idempotency_key,
            p_input_hash, p_metadata, p_created_by, p_created_group, p_budget_usd, p_on_budget, p_max_failure_rate,
            p_min_finished, p_on_failure_rate, p_expected_ms, p_expected_usd);

    -- Jobs are made here, ids included; they never travel through the server.
    with sample as materialized (
        select s.id from scenario s where s.definition_id = p_definition and (p_scenarios is null or s.id = any (p_scenarios))
    ), size as materialized (
        -- What a job asks of its provider, as far as it is known before: a quarter of the characters is about the tokens. The
        -- conversation so far is sent again with every turn. A thousand prompts are enough to know their length.
        select t.turns, (t.turns * p.tokens + t.turns * (t.turns + 1) / 2.0 * o.tokens)::int as tokens
          from (select least(1 + case when jsonb_typeof(p_snapshot -> 'followups') = 'array'
                                      then jsonb_array_length(p_snapshot -> 'followups') else 0 end,
                             (p_params ->> 'maxTurns')::int) as turns) as t
         cross join (select (coalesce(octet_length(p_snapshot ->> 'preamble'), 0)
                             + coalesce(avg(octet_length(s.prompt)), 0)) / 4.0 as tokens
                       from (select s.prompt from scenario s where s.definition_id = p_definition limit 1000) as s) as p
         cross join (select least((p_params ->> 'maxTokens')::int, p_output_tokens) as tokens) as o
    ), model as materialized (
        select m.*, nextval(pg_get_serial_sequence('lane', 'id')) as lane_id
          from unnest(p_models, p_pricing, p_estimates_usd) with ordinality as m (name, pricing, estimate_usd, position)
    ), new_job as (
        insert into job (lane_id, scenario_id, run_at, is_fresh)
        select m.lane_id, s.id, now(), true from model m cross join sample s order by m.lane_id, s.id
        returning id, lane_id
    ), made as (
        -- Where the lane finds them.
        select j.lane_id, count(*)::int as jobs, min(j.id) as first, max(j.id) as last from new_job j group by j.lane_id
    ), new_lane as (
        insert into lane (id, run_id, kind, model, position, priority, max_concurrency, is_live, total, pending,
                          pricing, estimate_usd, budget_usd, is_guarded, requests, tokens,
                          fresh, fresh_after, fresh_until, fresh_at)
        overriding system value
        select m.lane_id, p_run, 'probe:scenario', m.name, m.position, p_priority, p_max_concurrency, true, n.jobs, n.jobs,
               m.pricing, m.estimate_usd, p_budget_usd, p_budget_usd is not null or p_max_failure_rate is not null,
               z.turns, z.tokens, n.jobs, n.first - 1, n.last, now()
          from model m
          join made n on n.lane_id = m.lane_id
         cross join size as z
        returning total
    )
    select sum(l.total) into v_jobs from new_lane l;

    perform record_act('startRun', 'run', p_run::text, p_run, null,
                       jsonb_build_object('status', 'PENDING', 'definitionId', p_definition, 'models', p_models,
                                          'priority', p_priority, 'maxConcurrency', p_max_concurrency,
                                          'budgetUsd', p_budget_usd, 'maxFailureRate', p_max_failure_rate,
                                          'samplePercentage', p_sample_percentage, 'sampleSeed', p_sample_seed,
                                          'jobs', v_jobs));
    perform pg_notify('runlane_wake', '');

    -- From here to the commit one run of a user at a time, so that each sees those before it. A class of its own among the
    -- advisory locks.
    perform pg_advisory_xact_lock(1919840623, hashtext(p_created_by));
    -- A statement of its own: it sees what was committed before the lock was granted.
    if (select sum(l.pending) from lane l join run r on r.id = l.run_id
         where l.is_live and l.id >= (select m.live_from from live_mark m)
           and r.created_by = p_created_by) > p_waiting_max then
        raise exception 'more than % jobs of this user would wait', p_waiting_max
              using errcode = 'check_violation', constraint = 'user_waiting_jobs_max';
    end if;
end
$$;
