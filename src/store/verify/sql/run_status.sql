-- A run's status agrees with its lanes.
with lanes as materialized (
    select l.run_id,
           bool_or(l.is_live) filter (where l.kind = 'probe:scenario') as is_live,
           count(*) filter (where l.is_live and l.is_paused) as paused,
           count(*) filter (where l.is_live and not l.is_paused and l.is_open) as unpaused,
           count(*) filter (where l.kind = 'probe:scenario' and l.is_open) as open,
           count(*) filter (where l.kind = 'probe:scenario' and not l.is_open) as closed,
           count(*) filter (where l.priority <> r.priority) as of_other_priority,
           count(*) filter (where l.kind = 'probe:scenario'
                                  and (l.budget_usd is distinct from r.budget_usd
                                       or l.is_guarded <> (num_nonnulls(r.budget_usd, r.max_failure_rate) > 0)))
               as of_other_guard,
           count(*) filter (where l.kind = 'probe:scenario'
                                  and l.max_concurrency is distinct from r.max_concurrency) as of_other_ceiling
      from lane l
      join run r on r.id = l.run_id
     group by l.run_id
)
select format('run %s', r.id) as "subject!", format('is %s, but %s', r.status, w.what) as "detail!"
  from run r
  join lanes l on l.run_id = r.id
 cross join lateral (values
    (r.status = 'COMPLETED' and l.is_live, 'probes wait or run'),
    (r.status in ('PENDING', 'RUNNING', 'PAUSED') and not l.is_live, 'no probe waits or runs'),
    (r.status = 'PAUSED' and l.unpaused > 0, format('%s lanes with work are not paused', l.unpaused)),
    (r.status <> 'PAUSED' and l.paused > 0, format('%s lanes with work are paused', l.paused)),
    (r.status in ('CANCELLED', 'FAILED') and l.open > 0, format('%s lanes of probes are open', l.open)),
    (r.status not in ('CANCELLED', 'FAILED') and l.closed > 0, format('%s lanes of probes are closed', l.closed)),
    (l.of_other_priority > 0, format('%s lanes have another priority', l.of_other_priority)),
    (l.of_other_guard > 0, format('%s lanes have another budget or guard', l.of_other_guard)),
    (l.of_other_ceiling > 0, format('%s lanes have another maxConcurrency', l.of_other_ceiling)),
    (r.status = 'PENDING' and exists (select from lane p join current_job j on j.lane_id = p.id
                                       where p.run_id = r.id and p.kind = 'probe:scenario' and j.claims > 0),
     'probes were claimed')
 ) as w (is_wrong, what)
 where w.is_wrong
