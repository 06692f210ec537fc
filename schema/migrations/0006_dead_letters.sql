-- Jobs that gave up, kept with everything needed to understand and redrive them, apart from the jobs. The lock order is
-- that of 0003_claims.sql; dead letters come after the jobs.
--
-- A pending entry's job has failed in the entry's epoch: whatever lets the job try again closes the entry in the same
-- transaction, and closing an entry by hand leaves the job alone.

create type dlq_reason as enum
    ('staleness_timeout', 'max_retries_exceeded', 'dependency_cycle_detected', 'worker_unavailable', 'manual_dlq',
     'non_retryable', 'crash_loop');
create type dlq_resolution_status as enum ('pending', 'manually_resolved', 'permanently_failed', 'cancelled');
comment on type dlq_reason is 'Why a job gave up.';
comment on type dlq_resolution_status is 'Whether somebody is still to look into a dead letter, or how it was closed.';

create table dead_letter (
    id              bigint generated always as identity primary key,
    job_id          bigint not null,
    -- The epoch of the job that gave up.
    epoch           int not null,
    lane_id         bigint not null,
    run_id          uuid not null,
    definition_id   uuid not null,
    -- Who started the run.
    owner           text not null,
    kind            job_kind not null,
    model           text,
    reason          dlq_reason not null,
    status          dlq_resolution_status not null default 'pending',
    error_code      text not null,
    error_message   text not null,
    -- The same for what looks the same: of a crash that of its attempt, else of the error.
    fingerprint     text not null,
    -- The state from which the job gave up.
    original_state  job_state not null,
    -- The job and what it was asked, as they were: {job, scenario, model, params, run}.
    snapshot        jsonb not null,
    -- All its attempts, oldest first, with their columns.
    attempts        jsonb not null,
    metadata        jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    created_at      timestamptz not null default clock_timestamp(),
    resolved_at     timestamptz,
    resolved_by     text,
    notes           text,
    redriven_at     timestamptz,
    -- A job gives up once in an epoch.
    constraint dead_letter_identity unique (job_id, epoch),
    check ((status = 'pending') = (resolved_at is null) and (status = 'pending') = (resolved_by is null)),
    check (redriven_at is null or status = 'manually_resolved')
);
-- One open entry a job.
create unique index dead_letter_open on dead_letter (job_id) where status = 'pending';
-- Lists, newest first: of all that is open, and by the filters that are narrow.
create index dead_letter_waiting on dead_letter (id) where status = 'pending';
create index dead_letter_by_run on dead_letter (run_id, id);
create index dead_letter_by_owner on dead_letter (owner, id);
create index dead_letter_by_fingerprint on dead_letter (fingerprint, id);

-- The person that the transaction acts for.
create function acting() returns text language sql stable as $$
    select coalesce(nullif(current_setting('runlane.actor', true), ''), 'system')
$$;

-- What errors have in common that differ in numbers, ids and addresses only.
create function error_fingerprint(p_code text, p_message text) returns text language sql immutable as $$
    select p_code || ':' || left(md5(regexp_replace(lower(p_message), '[0-9a-f]*[0-9][0-9a-f]*', '#', 'g')), 12)
$$;

-- Makes entries of jobs that have just failed, with reasons that are parallel to them; a job without a reason did not
-- fail. Whoever calls holds the locks of their lanes.
create function bury(p_jobs bigint[], p_reasons dlq_reason[], p_original_state job_state, p_metadata jsonb)
returns void language sql
-- Every join is by a key, of few rows. The functions that call this have switched it off.
set enable_nestloop = on
set jit = off
as $$
    insert into dead_letter (job_id, epoch, lane_id, run_id, definition_id, owner, kind, model, reason, error_code,
                             error_message, fingerprint, original_state, snapshot, attempts, metadata)
    select j.id, j.epoch, l.id, r.id, r.definition_id, r.created_by, l.kind, l.model, i.reason, j.error_code,
           j.error_message, coalesce(a.list -> -1 ->> 'fingerprint', error_fingerprint(j.error_code, j.error_message)),
           p_original_state,
           jsonb_build_object(
               'job', to_jsonb(j),
               'scenario', case when s.id is not null then jsonb_build_object(
                   'id', s.id, 'key', s.key, 'name', s.name, 'prompt', s.prompt, 'dimensions', s.dimensions) end,
               'model', l.model,
               'params', r.params,
               'run', jsonb_build_object('id', r.id, 'name', r.name, 'status', r.status, 'batchId', r.batch_id)),
           coalesce(a.list, '[]'), p_metadata
      from unnest(p_jobs, p_reasons) as i (id, reason)
      join job j on j.id = i.id
      join lane l on l.id = j.lane_id
      join run r on r.id = l.run_id
      left join scenario s on s.id = j.scenario_id
     cross join lateral (
        select jsonb_agg(to_jsonb(t) - 'job_id' order by t.number) as list from attempt t where t.job_id = j.id
     ) as a
     where i.reason is not null
     order by j.id
$$;

-- Gives up jobs that wait, and returns those that it gave up: waiting jobs of a closed lane are cancelled and stay so.
-- Whoever calls holds the locks of all lanes of their runs, because the end of a run has it analysed.
create function bury_jobs(
    p_jobs bigint[], p_reason dlq_reason, p_error_code text, p_error_message text, p_metadata jsonb default '{}'
) returns setof bigint language plpgsql
-- See claim_jobs.
set enable_nestloop = off
set jit = off
as $$
declare
    v_now     timestamptz := clock_timestamp();
    v_jobs    bigint[];
    v_lanes   bigint[];
    v_drained uuid[];
    v_job     record;
begin
    v_lanes := array(select distinct j.lane_id from job j where j.id = any (p_jobs));
    v_lanes := array(select l.id from lane l where l.id = any (v_lanes) and l.is_open);
    perform from job j where j.id = any (p_jobs) order by j.id for update;
    with buried as (
        update job j
           set state = 'failed', is_fresh = false, finished_at = v_now, error_code = p_error_code,
               error_message = p_error_message,
               -- Nothing that it did was wrong.
               error_retryable = true
         where j.id = any (p_jobs) and j.state = 'pending' and j.lane_id = any (v_lanes)
           and not (j.is_fresh and j.id <= (select l.fresh_after from lane l where l.id = j.lane_id))
        returning j.id, j.lane_id
    ), counted as (
        select b.lane_id, count(*)::int as n from buried b group by b.lane_id
    ), moved as (
        update lane l
           set pending = l.pending - c.n, failed = l.failed + c.n, is_live = l.pending - c.n + l.active > 0,
               version = l.version + 1, updated_at = v_now
          from counted c
         where l.id = c.lane_id and l.id = any (v_lanes)
        returning l.kind, c.n
    ), blamed as (
        insert into lane_error as e (lane_id, error_code, failed)
        select c.lane_id, p_error_code, c.n from counted c order by 1
        on conflict (lane_id, error_code) do update set failed = e.failed + excluded.failed
    ), tallied as (
        -- No node had them.
        insert into queue_minute as q (minute, kind, node_id, completed, failed)
        select date_trunc('minute', v_now), m.kind, '00000000-0000-0000-0000-000000000000', 0, sum(m.n)
          from moved m group by m.kind order by m.kind
        on conflict (minute, kind, node_id) do update set failed = q.failed + excluded.failed
    )
    select array_agg(b.id order by b.id) into v_jobs from buried b;
    if v_jobs is null then
        return;
    end if;
    perform bury(v_jobs, array_fill(p_reason, array[cardinality(v_jobs)]), 'pending', p_metadata);
    for v_job in select d.job_id, d.run_id from dead_letter d where d.job_id = any (v_jobs) and d.status = 'pending'
                  order by d.job_id loop
        perform record_act('job.dead_letter', 'job', v_job.job_id::text, v_job.run_id,
                           jsonb_build_object('state', 'pending'),
                           jsonb_build_object('state', 'failed', 'reason', p_reason, 'errorCode', p_error_code),
                           p_error_message);
    end loop;
    v_drained := array(select distinct l.run_id from lane l
                        where l.id = any (v_lanes) and l.kind = 'probe:scenario' and not l.is_live);
    if v_drained <> '{}' then
        perform finish_runs(v_drained);
    end if;
    return query select unnest(v_jobs);
end
$$;

-- Closes the pending entries of jobs that are to try again, in the name of whom the transaction acts for.
create function close_dead_letters(p_jobs bigint[], p_action text) returns void language sql as $$
    with closed as (
        update dead_letter d
           set status = 'manually_resolved', resolved_at = clock_timestamp(), resolved_by = acting(),
               redriven_at = clock_timestamp()
         where d.job_id = any (p_jobs) and d.status = 'pending'
        returning d.id, d.job_id, d.run_id, d.epoch
    )
    insert into audit (actor, role, request_id, action, subject_kind, subject_id, run_id, before, after)
    select acting(), nullif(current_setting('runlane.role', true), ''),
           nullif(current_setting('runlane.request_id', true), ''), p_action, 'dead_letter', c.id::text, c.run_id,
           jsonb_build_object('status', 'pending', 'epoch', c.epoch),
           jsonb_build_object('status', 'manually_resolved', 'epoch', c.epoch + 1, 'jobId', c.job_id)
      from closed c
     order by c.id
$$;

-- The guard that failed a run closed its lanes, which cancelled what waited there and what came back since. These jobs
-- wait again; what a person had cancelled stays cancelled.
create function reopen_lanes(p_run uuid) returns void language sql as $$
    with closed as materialized (
        select l.id, l.closed_at, l.is_settled from lane l
         where l.run_id = p_run and l.kind = 'probe:scenario' and not l.is_open
    ), rewritten as (
        update job j set state = 'pending', finished_at = null
          from closed c join ended_job e on e.lane_id = c.id and e.state = 'cancelled' and e.finished_at >= c.closed_at
         where j.id = e.job_id and not j.cancel_requested
        returning j.lane_id
    ), waiting as (
        -- Rows that maintenance has not come to: they are cancelled by their lane only.
        select c.id as lane_id
          from closed c join lane l on l.id = c.id
         cross join lateral waiting_jobs(l, null) as w
         where not c.is_settled
    ), counted as (
        select w.lane_id, count(*)::int as n
          from (select lane_id from rewritten union all select lane_id from waiting) as w
         group by w.lane_id
    )
    update lane l
       set is_open = true, closed_at = null, reopening_at = null, is_settled = true, is_paused = false,
           pending = l.pending + c.n, cancelled = l.cancelled - c.n, is_live = l.pending + c.n + l.active > 0,
           version = l.version + 1, updated_at = clock_timestamp()
      from (select o.id, coalesce(n.n, 0) as n from closed o left join counted n on n.lane_id = o.id) as c
     where l.id = c.id
$$;

-- Failed jobs wait again as new epochs, each from its time on (now, where it has none), their entries are closed, and
-- every counter follows. Whoever calls holds the locks of all lanes of their runs, and has opened the lanes of a run that
-- its guard had stopped.
create function retry_jobs(p_jobs bigint[], p_run_at timestamptz[], p_action text) returns void language plpgsql
-- See claim_jobs.
set enable_nestloop = off
set jit = off
as $$
declare
    v_now   timestamptz := clock_timestamp();
    v_jobs  bigint[];
    v_lanes bigint[];
begin
    v_lanes := array(select distinct j.lane_id from job j where j.id = any (p_jobs));
    v_jobs := array(select f.id from (select j.id from job j where j.id = any (p_jobs) and j.state = 'failed'
                                       order by j.id for update) as f);
    perform close_dead_letters(v_jobs, p_action);
    with input as materialized (
        select * from unnest(p_jobs, p_run_at) as i (id, run_at)
    ), old as materialized (
        select j.id, j.lane_id, j.error_code from job j where j.id = any (v_jobs)
    ), retried as (
        update job j
           set state = 'pending', epoch = j.epoch + 1, epoch_claims = j.claims, failures = 0, losses = 0,
               losses_alone = 0, throttles = 0, throttled_ms = 0, is_suspect = false, cancel_requested = false,
               run_at = coalesce(i.run_at, v_now), finished_at = null,
               error_code = null, error_message = null, error_retryable = null
          from input i
         where j.id = any (v_jobs) and i.id = j.id
    ), counted as materialized (
        select o.lane_id, o.error_code, count(*)::int as n from old o group by o.lane_id, o.error_code
    ), forgiven as (
        update lane_error e set failed = e.failed - c.n
          from counted c
         where e.lane_id = c.lane_id and e.error_code = c.error_code and e.lane_id = any (v_lanes)
    )
    update lane l
       set pending = l.pending + c.n, failed = l.failed - c.n, is_live = true, is_open = true, closed_at = null,
           is_paused = (select r.status = 'PAUSED' from run r where r.id = l.run_id),
           version = l.version + 1, updated_at = v_now
      from (select c.lane_id, sum(c.n)::int as n from counted c group by c.lane_id) as c
     where l.id = c.lane_id and l.id = any (v_lanes);
    delete from lane_error e where e.lane_id = any (v_lanes) and e.failed = 0;
    perform pg_notify('runlane_wake', '');
end
$$;

-- What stands against redriving entries: null for one that can be.
create function redrive_obstacles(p_ids bigint[])
returns table (id bigint, run_id uuid, job_id bigint, is_probe boolean, run_status run_status, why text)
language sql stable as $$
    select d.id, d.run_id, d.job_id, d.kind = 'probe:scenario', r.status,
           case when d.status <> 'pending' then 'already_resolved'
                when j.id is null or j.state <> 'failed' or j.epoch <> d.epoch then 'superseded'
                -- An analysis only reads its run.
                when r.status = 'CANCELLED' and d.kind = 'probe:scenario' then 'run_cancelled'
           end
      from dead_letter d
      left join job j on j.id = d.job_id
      left join run r on r.id = d.run_id
     where d.id = any (p_ids)
$$;

-- Redrives entries: their jobs wait again as new epochs, p_per_minute of them becoming due each minute (all at once,
-- where it is null) from p_base on, after the p_done before them. Says of each entry when its job is due, or why it was
-- skipped. A dry run says the same and changes nothing.
create function redrive_dead_letters(p_ids bigint[], p_base timestamptz, p_done bigint, p_per_minute int, p_dry_run boolean)
returns table (id bigint, run_id uuid, why text, run_at timestamptz) language plpgsql
set jit = off
as $$
declare
    v_runs   uuid[] := array(select distinct d.run_id from dead_letter d where d.id = any (p_ids));
    v_ids    bigint[];
    v_jobs   bigint[];
    v_due    timestamptz[];
    v_reopen uuid[];
begin
    if not p_dry_run then
        perform from lane l where l.run_id = any (v_runs) order by l.id for update;
        perform from job j where j.id = any (array(select d.job_id from dead_letter d where d.id = any (p_ids)))
          order by j.id for update;
        perform from dead_letter d where d.id = any (p_ids) order by d.id for update;
        perform from run r where r.id = any (v_runs) order by r.id for update;
    end if;
    with found as (
        select o.id, o.job_id,
               p_base + interval '60 seconds' * ((p_done + row_number() over (order by o.id) - 1)::float8 / p_per_minute)
                   as due
          from redrive_obstacles(p_ids) o where o.why is null
    )
    select array_agg(f.id order by f.id), array_agg(f.job_id order by f.id), array_agg(coalesce(f.due, p_base) order by f.id)
      into v_ids, v_jobs, v_due
      from found f;
    return query
    select o.id, o.run_id, o.why, i.run_at
      from redrive_obstacles(p_ids) o
      left join unnest(v_ids, v_due) as i (id, run_at) on i.id = o.id
     order by o.id;
    if p_dry_run or v_ids is null then
        return;
    end if;
    v_reopen := array(select distinct o.run_id from redrive_obstacles(p_ids) o where o.why is null and o.is_probe);
    perform reopen_lanes(r.id) from run r where r.id = any (v_reopen) and r.status = 'FAILED';
    perform retry_jobs(v_jobs, v_due, 'redriveDeadLetters');
    update run r
       set status = 'RUNNING', completed_at = null, updated_at = clock_timestamp(), version = r.version + 1
     where r.id = any (v_reopen) and r.status in ('COMPLETED', 'FAILED');
end
$$;

-- Closes a pending entry by hand. The job is left alone.
create function resolve_dead_letter(p_id bigint, p_status dlq_resolution_status, p_notes text, p_metadata jsonb)
returns void language plpgsql as $$
declare
    v_entry dead_letter;
begin
    update dead_letter d
       set status = p_status, resolved_at = clock_timestamp(), resolved_by = acting(), notes = p_notes,
           metadata = d.metadata || coalesce(p_metadata, '{}')
     where d.id = p_id and d.status = 'pending'
    returning * into strict v_entry;
    perform record_act('resolveDeadLetter', 'dead_letter', p_id::text, v_entry.run_id,
                       jsonb_build_object('status', 'pending'),
                       jsonb_build_object('status', p_status, 'jobId', v_entry.job_id), p_notes);
end
$$;
