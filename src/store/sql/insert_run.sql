-- A run, its lanes and its jobs: one statement, so all of it or nothing. Jobs are made here, ids included; they never
-- travel through the server.
with new_run as (
    insert into run (id, batch_id, definition_id, definition_snapshot, name, experiment_id, models, params, priority,
                     max_concurrency, sample_percentage, sample_seed, sample_algorithm, idempotency_key, input_hash,
                     metadata, created_by, request_id, budget_usd, on_budget, max_failure_rate, min_finished, on_failure_rate,
                     expected_ms, expected_usd, created_group)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $19,
            $22, $23, $24, $25, $26, $27, $28, $29)
), sample as materialized (
    select s.id from scenario s where s.definition_id = $3 and ($18::bigint[] is null or s.id = any ($18))
), size as materialized (
    -- What a job asks of its provider, as far as it is known before: a quarter of the characters is about the tokens. The
    -- conversation so far is sent again with every turn. A thousand prompts are enough to know their length.
    select t.turns, (t.turns * p.tokens + t.turns * (t.turns + 1) / 2.0 * o.tokens)::int as tokens
      from (select least(1 + case when jsonb_typeof($4::jsonb -> 'followups') = 'array'
                                  then jsonb_array_length($4::jsonb -> 'followups') else 0 end,
                         ($8::jsonb ->> 'maxTurns')::int) as turns) as t
     cross join (select coalesce(octet_length($4::jsonb ->> 'preamble'), 0) / 4.0 + coalesce(avg(octet_length(s.prompt)), 0) / 4.0
                        as tokens
                   from (select s.prompt from scenario s where s.definition_id = $3 limit 1000) as s) as p
     cross join (select least(($8::jsonb ->> 'maxTokens')::int, $30::int) as tokens) as o
), model as materialized (
    select m.*, nextval(pg_get_serial_sequence('lane', 'id')) as lane_id
      from unnest($7::text[], $20::jsonb[], $21::numeric[]) with ordinality as m (name, pricing, estimate_usd, position)
), new_job as (
    insert into job (lane_id, scenario_id, run_at, is_fresh)
    select m.lane_id, s.id, now(), true from model m cross join sample s order by m.lane_id, s.id
    returning id, lane_id
), made as (
    -- Where the lane finds them.
    select j.lane_id, count(*)::int as jobs, min(j.id) as first, max(j.id) as last from new_job j group by j.lane_id
), new_lane as (
    insert into lane (id, run_id, kind, model, position, priority, max_concurrency, is_live, total, pending,
                      pricing, estimate_usd, budget_usd, is_guarded, requests, tokens, fresh, fresh_after, fresh_until, fresh_at)
    overriding system value
    select m.lane_id, $1, 'probe:scenario', m.name, m.position, $9, $10, true, n.jobs, n.jobs,
           m.pricing, m.estimate_usd, $22, $22::numeric is not null or $24::float8 is not null, z.turns, z.tokens,
           n.jobs, n.first - 1, n.last, now()
      from model m
      join made n on n.lane_id = m.lane_id
     cross join size as z
)
select pg_notify('runlane_wake', '')
