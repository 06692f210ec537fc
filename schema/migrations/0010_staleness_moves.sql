-- The detector's steps. Each is one call in autocommit, begins with the leader's fence, does a bounded amount of work
-- and says what it did; the leader calls it until it says nothing. The stage and the health are the reason, the action is
-- what was done, and the jobs are those that it was done to.

-- Puts the installation's thresholds into force: the leader's, if they differ. Whoever leads in nothing (p_epoch is null)
-- only fills the table where it is empty.
create function set_staleness_thresholds(
    p_epoch bigint, p_stages staleness_stage[], p_kinds job_kind[], p_thresholds_ms bigint[], p_warn_percents smallint[],
    p_actions staleness_action[]
) returns void language plpgsql as $$
begin
    if p_epoch is not null then
        perform assert_leader('staleness', p_epoch);
    end if;
    insert into staleness_threshold as t (stage, kind, threshold_ms, warn_percent, action)
    select * from unnest(p_stages, p_kinds, p_thresholds_ms, p_warn_percents, p_actions)
    on conflict on constraint staleness_threshold_key do update
       set threshold_ms = excluded.threshold_ms, warn_percent = excluded.warn_percent, action = excluded.action
     where p_epoch is not null
       and (t.threshold_ms, t.warn_percent, t.action)
           is distinct from (excluded.threshold_ms, excluded.warn_percent, excluded.action);
end
$$;

-- Records one step in the audit, for the lane as a whole: the jobs are listed in it.
create function record_staleness(
    p_action text, p_run uuid, p_lane bigint, p_stage staleness_stage, p_threshold_ms bigint, p_jobs bigint[]
) returns void language sql as $$
    select record_act('staleness.' || p_action, 'lane', p_lane::text, p_run, null,
                      jsonb_build_object('stage', p_stage, 'thresholdMs', p_threshold_ms, 'jobs', p_jobs))
$$;

-- Looks at what waits: up to p_batch jobs of the first lanes that have some which nobody was told about. Jobs become
-- stale in the order of an index, so a mark says how far a lane has been looked at, and nothing is read twice. A pause
-- starts the clock of a lane anew, so a lane that was resumed too late has nothing stale.
create function sweep_waiting_jobs(p_epoch bigint, p_batch int)
returns table (run_id uuid, lane_id bigint, kind job_kind, stage staleness_stage, health staleness_health,
               action staleness_action, jobs bigint[])
language plpgsql set jit = off as $$
#variable_conflict use_column
declare
    v_now   timestamptz;
    v_left  int := p_batch;
    v       record;
    v_read  int;
    v_at    timestamptz;
    v_job   bigint;
    v_jobs  bigint[];
    v_acted bigint[];
begin
    perform assert_leader('staleness', p_epoch);
    v_now := clock_timestamp();
    for v in
        -- In the order of the lanes, and looked at one by one: the loop ends the query as soon as it has enough.
        select c.*, m.at as mark_at, m.job_id as mark_job
          from (
            select t.*, l as lane, h.health, d.action as does, f.stale_from,
                   case h.health when 'stale' then f.stale_from
                                 else v_now - interval '1 millisecond' * t.warn_ms end as cutoff,
                   greatest(l.resumed_at, q.resumed_at) as resumed_at
              from v_staleness_thresholds t
              join lane l on l.id = t.lane_id
             cross join queue_state q
             cross join (values ('warning'::staleness_health), ('stale')) as h (health)
             cross join lateral (select v_now - interval '1 millisecond' * t.threshold_ms as stale_from) as f
             cross join lateral (
                select case h.health when 'stale' then t.action else 'REPORT' end as action
             ) as d
             where l.is_open and not l.is_paused and l.held_at is null and l.pending > 0 and not q.is_paused and t.stage <> 'in_process'
             order by t.lane_id, t.stage, h.health desc
            offset 0
          ) as c
          left join lateral (
            select k.at, k.job_id from staleness_mark k
             where k.lane_id = c.lane_id and k.stage = c.stage and k.health = c.health and k.action = c.does
          ) as k on true
         -- What is stale already is not warned about.
         cross join lateral (
            select case when c.health = 'stale' then coalesce(k.at, '-infinity')
                        else greatest(k.at, c.stale_from) end as at,
                   case when c.health = 'warning' and coalesce(k.at <= c.stale_from, true) then 9223372036854775807
                        else coalesce(k.job_id, 0) end as job_id
         ) as m
         where coalesce(c.resumed_at <= c.cutoff, true)
           and case c.stage
               when 'waiting' then exists (
                   select from waiting_job w where w.lane_id = c.lane_id and w.run_at <= c.cutoff
                      and (w.run_at, w.job_id) > (m.at, m.job_id))
                    or (c.lane).fresh > 0 and (c.lane).fresh_at <= c.cutoff and (c.lane).fresh_at >= m.at
                       and exists (select from fresh_jobs(c.lane, case when (c.lane).fresh_at = m.at then m.job_id else 0 end))
               else exists (
                   select from waiting_job w where w.lane_id = c.lane_id
                      and w.waits_since <= c.cutoff and (w.waits_since, w.job_id) > (m.at, m.job_id))
               end
    loop
        select count(*), (array_agg(w.at order by w.at desc, w.job_id desc))[1],
               (array_agg(w.job_id order by w.at desc, w.job_id desc))[1],
               array_agg(w.job_id order by w.job_id) filter (where w.is_it)
          into v_read, v_at, v_job, v_jobs
          from waiting_of_lane(v.lane_id, v.stage, v.mark_at, v.mark_job, v.cutoff, v_left, false) as w;
        continue when v_read = 0;
        insert into staleness_mark (lane_id, stage, health, action, at, job_id)
        values (v.lane_id, v.stage, v.health, v.does, v_at, v_job)
        on conflict (lane_id, stage, health, action) do update set at = excluded.at, job_id = excluded.job_id;
        if v_jobs is not null then
            v_acted := null;
            if v.does = 'REQUEUE' then
                -- Nothing but its time: what is due keeps its place.
                with pulled as (
                    update job j set run_at = v_now
                     where j.id = any (v_jobs) and j.state = 'pending' and j.run_at > v_now
                    returning j.id
                )
                select array_agg(p.id order by p.id) into v_acted from pulled p;
                if v_acted is not null then
                    perform record_staleness('requeue', v.run_id, v.lane_id, v.stage, v.threshold_ms, v_acted);
                    perform pg_notify('runlane_wake', '');
                end if;
            elsif v.does = 'DLQ' then
                perform from lane l where l.run_id = v.run_id order by l.id for update;
                select array_agg(b order by b) into v_acted from bury_stale_jobs(v_jobs, v.stage, v.threshold_ms) as b;
                if v_acted is not null then
                    perform record_staleness('dead_letter', v.run_id, v.lane_id, v.stage, v.threshold_ms, v_acted);
                end if;
            end if;
            if v_acted is not null then
                return query select v.run_id, v.lane_id, v.kind, v.stage, v.health, v.does, v_acted;
            end if;
            if v.does <> 'DLQ' and v_jobs <> coalesce(v_acted, '{}') then
                v_jobs := array(select unnest(v_jobs) except select unnest(v_acted) order by 1);
                perform record_staleness(case v.health when 'stale' then 'report' else 'warn' end,
                                         v.run_id, v.lane_id, v.stage, v.threshold_ms, v_jobs);
                return query select v.run_id, v.lane_id, v.kind, v.stage, v.health, 'REPORT'::staleness_action, v_jobs;
            end if;
        end if;
        if v_jobs is null then
            -- Only what belongs to another stage: there may be more beyond.
            return query select v.run_id, v.lane_id, v.kind, v.stage, v.health, 'REPORT'::staleness_action, '{}'::bigint[];
        end if;
        v_left := v_left - v_read;
        -- Acts lock jobs, lanes and runs: one a call, and then nothing more, so that the order of locks is kept.
        exit when v_left <= 0 or v.does <> 'REPORT';
    end loop;
end
$$;

-- Makes dead letters of jobs that wait, and returns them. The caller holds the locks of all lanes of their runs.
create function bury_stale_jobs(p_jobs bigint[], p_stage staleness_stage, p_threshold_ms bigint) returns setof bigint
language plpgsql as $$
begin
    return query
    select * from bury_jobs(p_jobs, 'staleness_timeout'::dlq_reason, 'staleness_timeout'::text,
                      format('it was %s for longer than %s minutes, and its policy makes a dead letter of it',
                             replace(p_stage::text, '_', ' '), round(p_threshold_ms / 60000.0, 1)),
                      jsonb_build_object('stage', p_stage, 'thresholdMs', p_threshold_ms));
end
$$;

-- Looks at what is in process. Warns and reports once for each epoch of a job. Jobs are taken back from a node as a
-- release is, which counts against nobody, and start again p_delay_ms later, when the node has let go of them; after
-- p_requeues_max times in one epoch it is only reported, or made a dead letter where the definition says so.
create function sweep_active_jobs(p_epoch bigint, p_batch int, p_requeues_max int, p_delay_ms bigint)
returns table (run_id uuid, lane_id bigint, kind job_kind, stage staleness_stage, health staleness_health,
               action staleness_action, jobs bigint[])
language plpgsql set jit = off as $$
#variable_conflict use_column
declare
    v_now    timestamptz;
    v        record;
    v_ended  bigint[];
begin
    perform assert_leader('staleness', p_epoch);
    v_now := clock_timestamp();
    for v in
        with found as materialized (
            select t.run_id, t.lane_id, t.kind, t.stage, t.threshold_ms, j.id, j.epoch, j.claims, j.node_id, n.warned_at,
                   n.reported_at,
                   case when j.claimed_at > v_now - interval '1 millisecond' * t.threshold_ms then 'warning'
                        else 'stale' end::staleness_health as health,
                   case when j.claimed_at > v_now - interval '1 millisecond' * t.threshold_ms
                        then 'REPORT'::staleness_action
                        when t.action = 'REQUEUE' and coalesce(n.requeues, 0) >= p_requeues_max then
                            case when t.gives_up then 'DLQ'::staleness_action else 'REPORT' end
                        else t.action end as does
              from v_staleness_thresholds t
              join lane l on l.id = t.lane_id
              join active_job j on j.lane_id = t.lane_id
                               and j.claimed_at <= v_now - interval '1 millisecond' * t.warn_ms
              left join staleness_notice n on n.job_id = j.id and n.epoch = j.epoch
             where t.stage = 'in_process' and l.active > 0
        ), due as (
            select f.* from found f
             where case when f.does <> 'REPORT' then true
                        when f.health = 'stale' then f.reported_at is null
                        else f.warned_at is null end
             order by f.id limit p_batch
        )
        select d.run_id, d.lane_id, d.kind, d.stage, d.health, d.does, d.threshold_ms,
               -- The notices of many nodes are one; what is taken back is taken back from one node.
               case when d.does <> 'REPORT' then d.node_id end as node_id,
               array_agg(d.id order by d.id) as ids, array_agg(d.epoch order by d.id) as epochs,
               array_agg(d.claims order by d.id) as claims
          from due d
         group by d.run_id, d.lane_id, d.kind, d.stage, d.health, d.does, d.threshold_ms,
                  case when d.does <> 'REPORT' then d.node_id end
         -- What only speaks comes first: an act ends the call.
         order by d.does, d.lane_id
    loop
        if v.does = 'REPORT' then
            insert into staleness_notice as n (job_id, epoch, warned_at, reported_at)
            select i.id, i.epoch, case v.health when 'warning' then v_now end, case v.health when 'stale' then v_now end
              from unnest(v.ids, v.epochs) as i (id, epoch)
            on conflict (job_id, epoch) do update
               set warned_at = coalesce(n.warned_at, excluded.warned_at),
                   reported_at = coalesce(n.reported_at, excluded.reported_at);
            perform record_staleness(case v.health when 'stale' then 'report' else 'warn' end,
                                     v.run_id, v.lane_id, v.stage, v.threshold_ms, v.ids);
            return query select v.run_id, v.lane_id, v.kind, v.stage, v.health, v.does, v.ids;
            continue;
        end if;
        perform from lane l where l.run_id = v.run_id order by l.id for update;
        select array_agg(e.job_id order by e.job_id) into v_ended
          from end_attempts(
            v.node_id, v.ids, v.claims,
            array_fill('released'::attempt_outcome, array[cardinality(v.ids)]),
            array_fill(p_delay_ms, array[cardinality(v.ids)]),
            array_fill(null::text, array[cardinality(v.ids)]), array_fill(null::text, array[cardinality(v.ids)]),
            array_fill(null::boolean, array[cardinality(v.ids)]), array_fill(null::text, array[cardinality(v.ids)]),
            array_fill(null::jsonb, array[cardinality(v.ids)]), array_fill(null::jsonb, array[cardinality(v.ids)]),
            array_fill(false, array[cardinality(v.ids)]), array_fill(false, array[cardinality(v.ids)])) as e;
        -- Ended meanwhile: nothing was done.
        continue when v_ended is null;
        insert into staleness_notice as n (job_id, epoch, requeues)
        select i.id, i.epoch, 1 from unnest(v.ids, v.epochs) as i (id, epoch) where i.id = any (v_ended)
        on conflict (job_id, epoch) do update set requeues = n.requeues + 1;
        if v.does = 'DLQ' then
            perform bury_stale_jobs(v_ended, v.stage, v.threshold_ms);
        end if;
        perform record_staleness(case v.does when 'DLQ' then 'dead_letter' else 'requeue' end,
                                 v.run_id, v.lane_id, v.stage, v.threshold_ms, v_ended);
        -- The node that held them lets go.
        perform pg_notify('runlane_cancel', '');
        return query select v.run_id, v.lane_id, v.kind, v.stage, v.health, v.does, v_ended;
        exit;
    end loop;
end
$$;

-- Stops a run for good, as its own guard: what waits is closed as by a cancel, what runs may finish and is kept. The
-- caller holds all lanes of the run, and the run, which is RUNNING.
create function close_failed_run(p_run uuid) returns void language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    update lane l
       set cancelled = l.cancelled + l.pending, pending = 0, is_live = l.active > 0, is_open = false, is_paused = false,
           held_at = null, hold_reason = null, hold_fingerprint = null, closed_at = v_now, is_settled = l.pending = 0, version = l.version + 1, updated_at = v_now
     where l.run_id = p_run and l.kind = 'probe:scenario';
    update run r
       set status = 'FAILED', completed_at = v_now, paused_at = null, updated_at = v_now, version = r.version + 1
     where r.id = p_run;
    -- With nothing active there is no completion that would start the analysis of what there is.
    perform finish_runs(array[p_run]);
end
$$;

-- The same of a run that is RUNNING; says whether it was. The caller holds no lock that comes after the gate.
create function fail_run(p_run uuid) returns boolean language plpgsql as $$
begin
    perform pg_advisory_xact_lock(gate());
    perform from lane l where l.run_id = p_run order by l.id for update;
    perform from run r where r.id = p_run and r.status = 'RUNNING' for update;
    if not found then
        return false;
    end if;
    perform close_failed_run(p_run);
    return true;
end
$$;

-- Looks at the runs that are under way: one a call where it is failed.
create function sweep_runs(p_epoch bigint, p_batch int)
returns table (run_id uuid, lane_id bigint, kind job_kind, stage staleness_stage, health staleness_health,
               action staleness_action, jobs bigint[])
language plpgsql set jit = off as $$
#variable_conflict use_column
declare
    v_now timestamptz;
    v     record;
begin
    perform assert_leader('staleness', p_epoch);
    v_now := clock_timestamp();
    for v in
        select a.*
          from (
            select t.run_id, t.stage, t.threshold_ms, s.since,
                   case when s.since > v_now - interval '1 millisecond' * t.threshold_ms then 'warning'
                        else 'stale' end::staleness_health as health,
                   case when s.since > v_now - interval '1 millisecond' * t.threshold_ms
                        then 'REPORT'::staleness_action else t.action end as does
              from v_staleness_thresholds t
              join run r on r.id = t.run_id
             cross join queue_state q
             cross join lateral (select greatest(r.started_at, r.resumed_at, q.resumed_at) as since) as s
             where t.stage = 'run' and r.status = 'RUNNING' and r.started_at is not null and not q.is_paused
               and s.since <= v_now - interval '1 millisecond' * t.warn_ms
          ) as a
         where a.does = 'FAIL'
            or not exists (select from staleness_run_notice n
                            where n.run_id = a.run_id and n.since = a.since and n.health = a.health)
         order by a.does, a.run_id
         limit p_batch
    loop
        if v.does = 'FAIL' then
            -- The gate comes before the run: nothing else of this call may hold a run.
            continue when not fail_run(v.run_id);
        else
            insert into staleness_run_notice (run_id, since, health, at) values (v.run_id, v.since, v.health, v_now);
        end if;
        perform record_act(
            'staleness.' || case when v.does = 'FAIL' then 'fail_run' when v.health = 'stale' then 'report' else 'warn' end,
            'run', v.run_id::text, v.run_id, null,
            jsonb_build_object('stage', v.stage, 'thresholdMs', v.threshold_ms, 'since', v.since));
        return query select v.run_id, null::bigint, null::job_kind, v.stage, v.health, v.does, null::bigint[];
        exit when v.does = 'FAIL';
    end loop;
end
$$;

-- Forgets what was noted about jobs that are in process no more and whose epoch is over, and marks of lanes without
-- anything that waits or runs. Returns how many rows.
create function prune_staleness(p_epoch bigint, p_batch int) returns bigint language plpgsql as $$
declare
    v_notices bigint;
    v_marks   bigint;
begin
    perform assert_leader('staleness', p_epoch);
    delete from staleness_notice n
     where (n.job_id, n.epoch) in (
        select o.job_id, o.epoch from staleness_notice o left join job j on j.id = o.job_id and j.epoch = o.epoch
         where j.id is null or j.state not in ('pending', 'active') limit p_batch);
    get diagnostics v_notices = row_count;
    delete from staleness_mark m
     where not exists (select from lane l where l.id = m.lane_id and l.is_live);
    get diagnostics v_marks = row_count;
    delete from staleness_run_notice n
     where not exists (select from run r where r.id = n.run_id and r.status in ('RUNNING', 'PAUSED'));
    return v_notices + v_marks;
end
$$;
