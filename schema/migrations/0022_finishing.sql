-- How runs end, and are analysed. Locks as in 0003_claims.sql.

-- Makes an analysis of a run wait to be computed (anew). Nothing changes while one of the kind waits or runs. Whoever
-- calls holds the locks that come before. That one is computed anew is recorded.
create function start_analysis(p_run uuid, p_kind job_kind) returns void language plpgsql as $$
declare
    v_lane lane;
    v_now  timestamptz := clock_timestamp();
begin
    insert into lane (run_id, kind, position, priority, is_paused, is_live, total, pending, version)
    select r.id, p_kind, 0, r.priority, r.status = 'PAUSED', true, 1, 1, 1 from run r where r.id = p_run
    on conflict on constraint lane_identity do nothing
    returning * into v_lane;
    if found then
        insert into job (lane_id, run_at) values (v_lane.id, v_now);
    else
        select * into v_lane from lane l where l.run_id = p_run and l.kind = p_kind for update;
        if v_lane.is_live then
            -- It waits or runs already; it must not wait for a pause that has ended with the run.
            update lane l
               set is_paused = false, version = l.version + 1, updated_at = v_now
             where l.id = v_lane.id and l.is_paused
               and not exists (select from run r where r.id = p_run and r.status = 'PAUSED');
            perform pg_notify('runlane_wake', '');
            return;
        end if;
        if v_lane.failed > 0 then
            perform close_dead_letters(array(select j.id from job j where j.lane_id = v_lane.id), 'dead_letter.retried');
        end if;
        update job j
           set state = 'pending', epoch = j.epoch + 1, epoch_claims = j.claims, failures = 0, losses = 0,
               losses_alone = 0, throttles = 0, throttled_ms = 0, is_suspect = false, cancel_requested = false,
               run_at = v_now, finished_at = null, error_code = null, error_message = null, error_retryable = null
         where j.lane_id = v_lane.id;
        delete from lane_error e where e.lane_id = v_lane.id;
        update lane l
           set is_live = true, pending = 1, completed = 0, failed = 0, cancelled = 0,
               is_paused = (select r.status = 'PAUSED' from run r where r.id = p_run),
               version = l.version + 1, updated_at = v_now
         where l.id = v_lane.id;
        perform record_act('analysis.restarted', 'job', j.id::text, p_run, null, jsonb_build_object('epoch', j.epoch))
           from job j where j.lane_id = v_lane.id;
    end if;
    perform pg_notify('runlane_wake', '');
end
$$;

-- Closes runs in which nothing waits or runs any more, and has their basic analysis computed. The caller has brought
-- a probe lane of each to an end in this transaction. Runs are locked, and only then are their lanes read: of two that
-- end the last lanes at once, the second sees the first.
create function finish_runs(p_runs uuid[]) returns void language plpgsql as $$
declare
    v_run uuid;
    v_now timestamptz;
begin
    perform from run r where r.id = any (p_runs) order by r.id for update;
    v_now := clock_timestamp();
    for v_run in
        select r.id from run r
         where r.id = any (p_runs)
           -- By the run: among the live lanes, those of all runs would be read, and what an old snapshot keeps of them.
           and (select count(*) filter (where l.is_live) from lane l
                 where l.run_id = r.id and l.kind = 'probe:scenario') = 0
         order by r.id
    loop
        update run r
           set status = 'COMPLETED', completed_at = v_now, paused_at = null, updated_at = v_now,
               version = r.version + 1
         where r.id = v_run and r.status in ('PENDING', 'RUNNING', 'PAUSED');
        -- An analysis that waits for the end of a pause would wait for ever: the pause has ended with the run.
        update lane l set is_paused = false
         where l.id = any (array(select a.id from lane a where a.run_id = v_run and a.kind <> 'probe:scenario'))
           and l.is_paused and l.is_live;
        perform start_analysis(v_run, 'analyze:basic');
    end loop;
end
$$;
