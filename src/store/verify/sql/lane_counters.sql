-- The counters of a lane are the sums over its jobs; waiting jobs of a closed lane are cancelled.
with counted as materialized (
    select j.lane_id,
           count(*) filter (where j.state = 'pending') as pending,
           count(*) filter (where j.state = 'active') as active,
           count(*) filter (where j.state = 'completed') as completed,
           count(*) filter (where j.state = 'failed') as failed,
           count(*) filter (where j.state = 'cancelled') as cancelled
      from job j
     group by j.lane_id
)
select format('lane %s', l.id) as "subject!",
       format('%s of run %s: %s', c.name, l.run_id,
              format('the counter says %s, the jobs say %s', c.counter, c.sum)) as "detail!"
  from lane l
  left join counted n on n.lane_id = l.id
 cross join lateral (values
    ('pending', l.pending, case when l.is_open then coalesce(n.pending, 0) else 0 end),
    ('active', l.active, coalesce(n.active, 0)),
    ('completed', l.completed, coalesce(n.completed, 0)),
    ('failed', l.failed, coalesce(n.failed, 0)),
    ('cancelled', l.cancelled, coalesce(n.cancelled, 0) + case when l.is_open then 0 else coalesce(n.pending, 0) end),
    ('total', l.total, coalesce(n.pending + n.active + n.completed + n.failed + n.cancelled, 0))
 ) as c (name, counter, sum)
 where c.counter <> c.sum
