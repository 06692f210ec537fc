-- Runs, lanes and jobs of the one definition there is, as Fill describes them. Scenarios repeat as further samples.
-- Completed jobs have the least of a transcript. Nothing that is measured here looks at attempts, so failed jobs have none.

-- What triggers would do row by row is done in bulk below.
alter table job disable trigger user;

insert into run (id, batch_id, request_id, definition_id, definition_snapshot, models, params, status, priority,
                 sample_percentage, sample_seed, sample_algorithm, created_by, created_at, started_at, completed_at)
select gen_random_uuid(), gen_random_uuid(), 'bench', d.id, d.content,
       array(select 'mock/echo?lane=' || m from generate_series(1, current_setting('bench.lanes')::int) as m),
       '{}', s.status, 5, 100, 1, 'bench', 'bench', now() - interval '1 day',
       case when s.status <> 'PENDING' then now() - interval '1 day' end,
       case when s.status = 'COMPLETED' then now() end
  from generate_series(0, current_setting('bench.runs')::int - 1) as n
 cross join lateral (
    select case when not current_setting('bench.mixed')::boolean then 'PENDING'
                when n % 11 < 9 then 'COMPLETED'
                else 'RUNNING' end::run_status as status
 ) as s
 cross join definition d;

-- Every twentieth of the jobs that ended has failed: those whose place is 7 modulo 20.
insert into lane (run_id, kind, model, position, priority, is_live, total, pending, completed, failed)
select r.id, 'probe:scenario', m.model, m.position, r.priority, c.ended < c.total,
       c.total, c.total - c.ended, c.ended - c.failed, c.failed
  from run r
 cross join unnest(r.models) with ordinality as m (model, position)
 cross join lateral (
    select n.total, n.ended, (n.ended + 12) / 20 as failed
      from (select current_setting('bench.jobs')::int as total,
                   case r.status when 'COMPLETED' then current_setting('bench.jobs')::int
                                 when 'RUNNING' then current_setting('bench.jobs')::int / 2
                                 else 0 end as ended) as n
 ) as c
 order by r.seq, m.position;

insert into job (lane_id, scenario_id, sample, state, claims, failures, run_at, claimed_at, finished_at,
                 error_code, error_message, error_retryable, is_fresh, node_id)
select l.id, s.first + k % s.n, k / s.n, j.state, (j.state <> 'pending')::int, (j.state = 'failed')::int,
       now() - interval '1 day',
       case when j.state <> 'pending' then j.at - interval '1 second' end,
       case when j.state <> 'pending' then j.at end,
       case when j.state = 'failed' then 'server_error' end,
       case when j.state = 'failed' then 'the provider answered 503' end,
       case when j.state = 'failed' then true end, j.state = 'pending',
       case when j.state = 'completed' then '00000000-0000-7000-8000-000000000001'::uuid end
  from lane l
 cross join (select min(id) as first, count(*)::int as n from scenario) as s
 cross join lateral generate_series(0, l.total - 1) as k
 cross join lateral (
    select case when k >= l.completed + l.failed then 'pending'
                when k % 20 = 7 then 'failed'
                else 'completed' end::job_state as state,
           now() - (k % 1200) * interval '1 minute' as at
 ) as j;

update lane l set fresh = j.n, fresh_after = j.first - 1, fresh_until = j.last, fresh_at = j.run_at
  from (select lane_id, count(*)::int as n, min(id) as first, max(id) as last, min(run_at) as run_at
          from job where is_fresh group by lane_id) as j
 where j.lane_id = l.id;

insert into ended_job (lane_id, state, job_id, finished_at, error_code)
select lane_id, state, id, finished_at, error_code from job where state = 'failed' order by lane_id, id;

insert into transcript (job_id, lane_id, scenario_id, turns, usage, latency_ms, created_at)
select id, lane_id, scenario_id, '[]', '{}', 1, finished_at from job where state = 'completed' order by lane_id, id;

alter table job enable trigger user;

insert into lane_error (lane_id, error_code, failed) select id, 'server_error', failed from lane where failed > 0;

insert into queue_minute (minute, kind, node_id, completed, failed)
select date_trunc('minute', finished_at), 'probe:scenario', '00000000-0000-7000-8000-000000000001',
       count(*) filter (where state = 'completed'), count(*) filter (where state = 'failed')
  from job where finished_at is not null
 group by 1;
