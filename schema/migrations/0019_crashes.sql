-- Lanes that are held because their jobs crash. Locks as in 0003_claims.sql.

-- Counts the jobs whose attempts have just ended by a crash while alone, and holds the lanes in which so many crash in
-- the same way that the fault is hardly theirs. Whoever calls holds the lanes' locks and has recorded the attempts.
create function hold_crashing_lanes(p_job bigint[], p_number int[], p_alone boolean[], p_hold_jobs int)
returns void language sql as $$
    with alone as materialized (
        select i.id, i.number from unnest(p_job, p_number, p_alone) as i (id, number, alone) where i.alone
    ), crashed as (
        insert into lane_crash (lane_id, fingerprint, job_id)
        select j.lane_id, a.fingerprint, j.id
          from alone i
          -- Also by arrays of keys: joined alone, all jobs and attempts might be read to be merged with these.
          join past_attempt a on a.job_id = i.id and a.number = i.number and a.fingerprint is not null
                             and a.job_id = any (array(select x.id from alone x))
          join job j on j.id = i.id and j.id = any (array(select x.id from alone x))
        on conflict do nothing
        returning lane_id, fingerprint
    ), fresh as (
        select c.lane_id, c.fingerprint, count(*) as n from crashed c group by c.lane_id, c.fingerprint
    ), crowd as (
        -- The statement does not see its own inserts.
        select distinct on (f.lane_id) f.lane_id, f.fingerprint, k.n
          from fresh f
         cross join lateral (
            select f.n + count(*) as n from lane_crash c where c.lane_id = f.lane_id and c.fingerprint = f.fingerprint
         ) as k
         where k.n >= p_hold_jobs
         order by f.lane_id, k.n desc, f.fingerprint
    )
    update lane l
       set held_at = clock_timestamp(), hold_fingerprint = c.fingerprint,
           hold_reason = c.n || ' of its jobs crash their worker in the same way: ' || c.fingerprint,
           version = l.version + 1, updated_at = clock_timestamp()
      from crowd c
     where l.id = c.lane_id and l.id = any (array(select f.lane_id from fresh f))
       and l.kind = 'probe:scenario' and l.is_open and l.held_at is null
$$;
