-- The guard that failed a run closed its lanes, which cancelled what waited there and what came back since. These jobs
-- wait again; what a person had cancelled stays cancelled.
with closed as materialized (
    select l.id, l.closed_at, l.is_settled from lane l
     where l.run_id = $1 and l.kind = 'probe:scenario' and not l.is_open
), rewritten as (
    update job j set state = 'pending', finished_at = null
      from closed c
     where j.lane_id = c.id and j.state = 'cancelled' and j.finished_at >= c.closed_at and not j.cancel_requested
    returning j.lane_id
), waiting as (
    -- Rows that maintenance has not come to: they are cancelled by their lane only.
    select j.lane_id from closed c join job j on j.lane_id = c.id and j.state = 'pending' where not c.is_settled
), counted as (
    select w.lane_id, count(*)::int as n
      from (select lane_id from rewritten union all select lane_id from waiting) as w
     group by w.lane_id
)
update lane l
   set is_open = true, closed_at = null, is_settled = true, is_paused = false,
       pending = l.pending + c.n, cancelled = l.cancelled - c.n, is_live = l.pending + c.n + l.active > 0,
       version = l.version + 1, updated_at = clock_timestamp()
  from (select o.id, coalesce(n.n, 0) as n from closed o left join counted n on n.lane_id = o.id) as c
 where l.id = c.id
