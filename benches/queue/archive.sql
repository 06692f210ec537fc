-- Finished runs of one lane with a thousand jobs each, with attempts and transcripts; a twentieth has failed.

insert into run (id, batch_id, request_id, definition_id, definition_snapshot, models, params, status, priority,
                 sample_percentage, sample_seed, sample_algorithm, created_by, created_at, started_at, completed_at)
select gen_random_uuid(), gen_random_uuid(), 'bench', d.id, d.content, array['mock/finished'], '{}', 'COMPLETED', 5,
       100, 1, 'bench', 'bench', now() - interval '3 days', now() - interval '3 days', now() - interval '2 days'
  from generate_series(1, current_setting('bench.finished')::int / 1000) as n
 cross join definition d;

insert into lane (run_id, kind, model, position, priority, is_live, total, pending, completed, failed)
select id, 'probe:scenario', 'mock/finished', 0, 5, false, 1000, 0, 950, 50
  from run where models = array['mock/finished'] order by seq;

insert into job (lane_id, scenario_id, state, claims, failures, run_at, claimed_at, finished_at, error_code,
                 error_message, error_retryable, node_id)
select l.id, s.first + k, case when k % 20 = 7 then 'failed' else 'completed' end::job_state, 1, (k % 20 = 7)::int,
       now() - interval '3 days', now() - interval '2 days', now() - interval '2 days',
       case when k % 20 = 7 then 'server_error' end, case when k % 20 = 7 then 'the provider answered 503' end,
       case when k % 20 = 7 then true end,
       case when k % 20 <> 7 then '00000000-0000-7000-8000-000000000001'::uuid end
  from lane l
 cross join (select min(id) as first from scenario) as s
 cross join generate_series(0, 999) as k
 where l.model = 'mock/finished'
 order by l.id, k;

insert into lane_error (lane_id, error_code, failed)
select id, 'server_error', failed from lane where model = 'mock/finished';

insert into past_attempt (job_id, number, node_id, started_at, ended_at, outcome, error_code, error_message)
select j.id, 1, '00000000-0000-7000-8000-000000000001', j.claimed_at, j.finished_at, j.state::text::attempt_outcome,
       j.error_code, j.error_message
  from job j join lane l on l.id = j.lane_id where l.model = 'mock/finished' and j.state <> 'completed';

insert into transcript (job_id, lane_id, scenario_id, model_version, turns, usage, latency_ms, created_at)
select j.id, j.lane_id, j.scenario_id, 'mock-1',
       json_build_array(json_build_object('n', 1, 'prompt', repeat('a question ', 20), 'response', repeat('words ', 60))),
       '{"inputTokens": 10, "outputTokens": 10}', 10, j.finished_at
  from job j join lane l on l.id = j.lane_id where l.model = 'mock/finished' and j.state = 'completed';
