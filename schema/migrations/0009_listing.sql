-- How lists find jobs: hot and archived ones together.

-- The jobs of a lane in a state, hot or archived, by id: the last ones before an id, and the first ones after one. Waiting
-- ones of a closed lane are in the state that their rows have.
create function jobs_before(p_lane bigint, p_state job_state, p_before bigint, p_limit bigint) returns setof bigint
language sql stable as $$
    (select w.job_id from waiting_job w
      where p_state = 'pending' and w.lane_id = p_lane and w.job_id < p_before order by w.job_id desc limit p_limit)
    union all
    (select j.id
       from lane l
      cross join lateral (
        select j.id from job j
         where j.id > l.fresh_after and j.id <= l.fresh_until and j.id < p_before
           and j.lane_id + 0 = l.id and j.state = 'pending' and j.is_fresh
         order by j.id desc limit p_limit
      ) as j
      where p_state = 'pending' and l.id = p_lane)
    union all
    (select a.id from active_job a
      where p_state = 'active' and a.lane_id = p_lane and a.id < p_before order by a.id desc limit p_limit)
    union all
    (select t.job_id from transcript t
      where p_state = 'completed' and t.lane_id = p_lane and t.job_id < p_before order by t.job_id desc limit p_limit)
    union all
    -- An analysis has no transcript, and is the only one of its lane.
    (select j.id from job j
      where p_state = 'completed' and j.lane_id = p_lane and j.scenario_id is null and j.state = 'completed'
        and j.id < p_before)
    union all
    (select e.job_id from ended_job e
      where p_state in ('failed', 'cancelled') and e.lane_id = p_lane and e.state = p_state and e.job_id < p_before
      order by e.job_id desc limit p_limit)
    union all
    (select a.id from archived_job a
      where p_state in ('completed', 'failed', 'cancelled') and a.lane_id = p_lane and a.state = p_state
        and a.id < p_before
      order by a.id desc limit p_limit)
$$;
create function jobs_after(p_lane bigint, p_state job_state, p_after bigint, p_limit bigint) returns setof bigint
language sql stable as $$
    (select w.job_id from waiting_job w
      where p_state = 'pending' and w.lane_id = p_lane and w.job_id > p_after order by w.job_id limit p_limit)
    union all
    (select f.job_id from lane l cross join lateral fresh_jobs(l, p_after) as f
      where p_state = 'pending' and l.id = p_lane limit p_limit)
    union all
    (select a.id from active_job a
      where p_state = 'active' and a.lane_id = p_lane and a.id > p_after order by a.id limit p_limit)
    union all
    (select t.job_id from transcript t
      where p_state = 'completed' and t.lane_id = p_lane and t.job_id > p_after order by t.job_id limit p_limit)
    union all
    (select e.job_id from ended_job e
      where p_state in ('failed', 'cancelled') and e.lane_id = p_lane and e.state = p_state and e.job_id > p_after
      order by e.job_id limit p_limit)
    union all
    (select a.id from archived_job a
      where p_state in ('completed', 'failed', 'cancelled') and a.lane_id = p_lane and a.state = p_state
        and a.id > p_after
      order by a.id limit p_limit)
$$;

-- The jobs of a lane that failed with a code, hot or archived: the last ones before an id.
create function failed_before(p_lane bigint, p_code text, p_before bigint, p_limit bigint) returns setof bigint
language sql stable as $$
    (select e.job_id from ended_job e
      where e.lane_id = p_lane and e.state = 'failed' and e.error_code = p_code and e.job_id < p_before
      order by e.job_id desc limit p_limit)
    union all
    (select a.id from archived_job_failed a
      where a.lane_id = p_lane and a.error_code = p_code and a.id < p_before
      order by a.id desc limit p_limit)
$$;

-- The probes of a lane that ended last, as long as they are hot.
create function last_ended(p_lane bigint, p_limit bigint) returns table (job_id bigint, finished_at timestamptz)
language sql stable as $$
    select f.*
      from ((select t.job_id, t.created_at from transcript t where t.lane_id = p_lane order by t.seq desc limit p_limit)
            union all
            (select e.job_id, e.finished_at from ended_job e
              where e.lane_id = p_lane and e.state = 'failed'
              order by e.finished_at desc, e.job_id desc limit p_limit)) as f (job_id, finished_at)
     order by f.finished_at desc, f.job_id desc
     limit p_limit
$$;
