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
), new_lane as (
    insert into lane (run_id, kind, model, position, priority, max_concurrency, is_live, total, pending,
                      pricing, estimate_usd, budget_usd, is_guarded, requests, tokens)
    select $1, 'probe:scenario', m.model, m.position, $9, $10, true, n.jobs, n.jobs,
           m.pricing, m.estimate_usd, $22, $22::numeric is not null or $24::float8 is not null, z.turns, z.tokens
      from unnest($7::text[], $20::jsonb[], $21::numeric[]) with ordinality as m (model, pricing, estimate_usd, position)
     cross join (select count(*)::int as jobs from sample) as n
     cross join size as z
    returning id
), new_job as (
    insert into job (lane_id, scenario_id, run_at)
    select l.id, s.id, now() from new_lane l cross join sample s order by l.id, s.id
)
select pg_notify('runlane_wake', '')
