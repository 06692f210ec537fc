-- Jobs are found beside their table: each that waits in waiting_job with its times, or among the fresh ones of its lane
-- while nothing has happened to it; each that failed or was cancelled in ended_job; each that is active in what it was
-- claimed with, and one of which nothing was written since in exactly one claim. Nothing else stands there. A lane in which
-- anything waits or runs is found beyond the mark.
select format('job %s', coalesce(j.id, w.job_id)) as "subject!",
       case when w.job_id is null then 'waits, but no claim would find it'
            when j.id is null then 'is to be claimed, but does not wait'
            else 'waits, and is to be claimed at another time or in another lane' end as "detail!"
  from (select * from job where state = 'pending' and not is_fresh) as j
  full join waiting_job w on w.job_id = j.id
 where w.job_id is null or j.id is null
    or (w.lane_id, w.run_at, w.waits_since)
       is distinct from (j.lane_id, j.run_at, case when j.claims > j.epoch_claims then j.waits_since end)
union all
select format('job %s', j.id), 'is fresh, but no claim would find it'
  from job j join lane l on l.id = j.lane_id
 where j.is_fresh and j.id > l.fresh_after and not (j.id <= l.fresh_until and j.run_at = l.fresh_at)
union all
select format('job %s', j.id), format('is fresh and passed over, but %s claims have it', n.claims)
  from job j join lane l on l.id = j.lane_id
 cross join lateral (select count(*) as claims from claim c where j.id = any (c.jobs)) as n
 where j.is_fresh and j.id <= l.fresh_after and n.claims <> 1
union all
select format('lane %s', l.id), format('has %s fresh jobs, but counts %s', n.fresh, l.fresh)
  from lane l
 cross join lateral (
    select count(*) as fresh from job j where j.lane_id = l.id and j.is_fresh and j.id > l.fresh_after
 ) as n
 where n.fresh <> l.fresh
union all
select format('job %s', coalesce(j.id, e.job_id)),
       case when e.job_id is null then format('is %s, but no list would show it', j.state)
            when j.id is null then format('is listed as %s, but is not', e.state)
            else format('is %s, and is listed as something else', j.state) end
  from (select * from job where state in ('failed', 'cancelled')) as j
  full join ended_job e on e.job_id = j.id
 where e.job_id is null or j.id is null
    or (e.lane_id, e.state, e.finished_at, e.error_code) is distinct from (j.lane_id, j.state, j.finished_at, j.error_code)
union all
select format('job %s', j.id), 'is active, but nobody would find it if its node died'
  from job j
 where j.state = 'active'
   and not exists (select from claim c where c.id = j.claim_id and c.node_id = j.node_id and j.id = any (c.jobs))
union all
select format('lane %s', l.id), 'waits or runs, but stands before the mark from which claims look'
  from lane l cross join live_mark m
 where l.is_live and l.id < m.live_from
