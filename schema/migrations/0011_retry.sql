-- A run of any size is retried in steps, each a transaction of the caller's: what many jobs need is never done at once.

-- Takes up to p_batch rows back that were rewritten as cancelled, or archived as such, because the run's guard closed
-- their lanes; says how many. They stay cancelled by their lanes, so nothing changes for any reader, and what is left for
-- reopen_lanes is to count them. The caller holds the run's lanes.
create function take_back_cancelled(p_run uuid, p_batch int) returns int language plpgsql
set jit = off
as $$
declare
    v_lane record;
    v_jobs bigint[];
    v_n    int := 0;
begin
    for v_lane in
        select l.id, l.closed_at from lane l
         where l.run_id = p_run and l.kind = 'probe:scenario' and not l.is_open and l.cancelled > l.purged_cancelled
         order by l.id
    loop
        exit when v_n = p_batch;
        perform unarchive_jobs(array(
            select a.id from archived_job_cancelled a
             where a.lane_id = v_lane.id and a.finished_at >= v_lane.closed_at and not a.cancel_requested
             limit p_batch - v_n));
        v_jobs := array(select j.id from ended_job e join job j on j.id = e.job_id
                         where e.lane_id = v_lane.id and e.state = 'cancelled' and e.finished_at >= v_lane.closed_at
                           and not j.cancel_requested
                         order by e.job_id limit p_batch - v_n);
        if v_jobs <> '{}' then
            update job j set state = 'pending', finished_at = null where j.id = any (v_jobs);
            update lane l set is_settled = false, reopening_at = clock_timestamp() where l.id = v_lane.id;
            v_n := v_n + cardinality(v_jobs);
        end if;
    end loop;
    return v_n;
end
$$;

-- Has up to p_batch failed probes of a run wait again, hot or archived: those that come after the job p_job of the lane
-- p_lane, lane by lane and by id. Says which was the last, and how many there were. The caller holds the run's lanes.
create function retry_failed_probes(p_run uuid, p_lane bigint, p_job bigint, p_batch int)
returns table (lane_id bigint, job_id bigint, retried int) language plpgsql
set jit = off
as $$
declare
    v_lane bigint;
    v_jobs bigint[] := '{}';
    v_hot  bigint[];
    v_cold bigint[];
begin
    lane_id := p_lane;
    job_id := p_job;
    -- What has been purged cannot be retried.
    for v_lane in
        select l.id from lane l
         where l.run_id = p_run and l.kind = 'probe:scenario' and l.id >= p_lane and l.failed > l.purged_failed
         order by l.id
    loop
        exit when cardinality(v_jobs) = p_batch;
        if v_lane > lane_id then
            lane_id := v_lane;
            job_id := 0;
        end if;
        v_hot := array(select e.job_id from ended_job e
                        where e.lane_id = v_lane and e.state = 'failed' and e.job_id > retry_failed_probes.job_id
                        order by e.job_id limit p_batch - cardinality(v_jobs));
        v_cold := array(select a.id from archived_job_failed a
                         where a.lane_id = v_lane and a.id > job_id
                         order by a.id limit p_batch - cardinality(v_jobs));
        v_jobs := v_jobs || array(select i.id from unnest(v_hot || v_cold) as i (id)
                                   order by i.id limit p_batch - cardinality(v_jobs));
        if v_hot || v_cold <> '{}' then
            job_id := v_jobs[cardinality(v_jobs)];
            perform unarchive_jobs(array(select i.id from unnest(v_cold) as i (id) where i.id <= job_id));
        end if;
    end loop;
    retried := cardinality(v_jobs);
    if retried > 0 then
        perform retry_jobs(v_jobs, null, 'dead_letter.retried');
    end if;
    return next;
end
$$;
