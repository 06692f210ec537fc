-- The archive: finished jobs of finished runs, each with its attempts and its transcript in one row. Retention drops
-- whole partitions, so nothing is ever deleted in bulk. The lanes' counters stay the only home of progress: for each
-- outcome, jobs in `job` + jobs in `archived_job` + the lane's purged ones = the lane's counter.

alter table lane
    -- Jobs that are gone for good with their partition; the counters go on counting them.
    add column purged_completed int not null default 0,
    add column purged_failed    int not null default 0,
    add column purged_cancelled int not null default 0,
    -- Nothing of it is left in `job`.
    add column is_archived      boolean not null default false,
    add constraint lane_purged_is_counted check (
        purged_completed between 0 and completed and purged_failed between 0 and failed
        and purged_cancelled between 0 and cancelled);
-- What the archive looks at. Claims and completions change none of these columns.
create index lane_to_archive on lane (id) where not is_archived and kind = 'probe:scenario';

-- Runs and definitions that somebody deleted: hidden at once, gone for good later.
alter table run add column deleted_at timestamptz, add column deleted_by text,
    add check ((deleted_at is null) = (deleted_by is null));
alter table definition add column deleted_at timestamptz, add column deleted_by text,
    add check ((deleted_at is null) = (deleted_by is null));
-- Counts by status read this index alone, so it must know who is hidden.
drop index run_by_status;
create index run_by_status on run (status, seq) where deleted_at is null;
create index run_deleted on run (deleted_at) where deleted_at is not null;
create index definition_deleted on definition (deleted_at) where deleted_at is not null;

create table archived_job (
    id                 bigint not null,
    lane_id            bigint not null,
    scenario_id        bigint not null,
    sample             smallint not null,
    state              job_state not null,
    is_suspect         boolean not null,
    cancel_requested   boolean not null,
    claims             int not null,
    epoch              int not null,
    epoch_claims       int not null,
    failures           smallint not null,
    losses             smallint not null,
    losses_alone       smallint not null,
    throttles          int not null,
    throttled_ms       bigint not null,
    waits_since        timestamptz,
    run_at             timestamptz not null,
    -- Who completed it.
    node_id            uuid,
    claimed_at         timestamptz,
    finished_at        timestamptz not null,
    error_code         text,
    error_message      text,
    error_retryable    boolean,
    archived_at        timestamptz not null,
    -- Rows of `past_attempt` without the job, oldest first.
    attempts           jsonb not null,
    -- The transcript of a completed job.
    seq                bigint,
    model_version      text,
    turns              json,
    usage              jsonb,
    score              int,
    cost_usd           numeric,
    latency_ms         int,
    created_at         timestamptz
) partition by list (state);
create table archived_job_completed partition of archived_job for values in ('completed')
    partition by range (archived_at);
create table archived_job_failed partition of archived_job for values in ('failed') partition by range (archived_at);
create table archived_job_cancelled partition of archived_job for values in ('cancelled')
    partition by range (archived_at);
-- The same reads as of the hot tables: by id, and lists of a lane. The state is the partition's. The index on ids is one
-- that cannot be read in order: lists would be looked for in it, through the jobs of all lanes.
create index archived_job_id on archived_job using hash (id);
create index archived_job_listing on archived_job (lane_id, id);
create index archived_job_scenario on archived_job (lane_id, scenario_id);
create index archived_job_completed_last on archived_job_completed (lane_id, finished_at, id);
create index archived_job_failed_last on archived_job_failed (lane_id, finished_at, id);
create index archived_job_failed_code on archived_job_failed (lane_id, error_code, id);
create index archived_job_transcripts on archived_job_completed (lane_id, seq);

-- Every job, hot or archived. Branches without conditions, so that a list takes each from its index, in order.
create view any_job as
select id, lane_id, scenario_id, sample, state, is_suspect, cancel_requested, claims, epoch, epoch_claims, failures,
       losses, losses_alone, throttles, throttled_ms, waits_since, run_at, node_id, claimed_at, finished_at, error_code,
       error_message, error_retryable, null::timestamptz as archived_at
  from current_job
union all
select id, lane_id, scenario_id, sample, state, is_suspect, cancel_requested, claims, epoch, epoch_claims, failures,
       losses, losses_alone, throttles, throttled_ms, waits_since, run_at, node_id, claimed_at, finished_at, error_code,
       error_message, error_retryable, archived_at
  from archived_job;
comment on view any_job is 'Every job, hot or archived; archived_at tells which.';

create view any_attempt as
select job_id, number, node_id, started_at, ended_at, outcome, error_code, error_message, stderr_tail, usage,
       fingerprint, cost_usd
  from attempt
union all
select j.id, a.number, a.node_id, a.started_at, a.ended_at, a.outcome, a.error_code, a.error_message, a.stderr_tail,
       a.usage, a.fingerprint, a.cost_usd
  from archived_job j
 cross join lateral jsonb_populate_recordset(null::past_attempt, j.attempts) as a
union all
select id, claims, node_id, claimed_at, finished_at, 'completed', null, null, null, null, null, null
  from archived_job where state = 'completed' and scenario_id is not null;
comment on view any_attempt is 'Every attempt that has ended, of hot and of archived jobs. Ask for it by job_id.';

create view any_transcript as
select job_id, seq, lane_id, scenario_id, model_version, turns, usage, score, cost_usd, latency_ms, created_at
  from transcript
union all
select id, seq, lane_id, scenario_id, model_version, turns, usage, score, cost_usd, latency_ms, created_at
  from archived_job_completed;
comment on view any_transcript is 'Every transcript, of hot and of archived jobs.';

-- Held by whoever archives, purges or removes: one node at a time.
create function archive_lock() returns bigint language sql immutable as $$ select 7243398251 $$;

-- The month-long partitions of the archive.
create function archive_partitions()
returns table (outcome job_state, partition text, from_at timestamptz, until_at timestamptz, jobs_estimated bigint,
               bytes bigint) language sql stable as $$
    select o.outcome, c.relname::text, m.from_at,
           (m.from_at at time zone 'UTC' + interval '1 month') at time zone 'UTC',
           nullif(c.reltuples, -1)::bigint, pg_total_relation_size(c.oid)
      from unnest(array['completed', 'failed', 'cancelled']::job_state[]) as o (outcome)
      join pg_inherits i on i.inhparent = to_regclass('archived_job_' || o.outcome)
      join pg_class c on c.oid = i.inhrelid and c.relkind = 'r'
     cross join lateral (
        select make_timestamptz(left(right(c.relname, 7), 4)::int, right(c.relname, 2)::int, 1, 0, 0, 0, 'UTC')
     ) as m (from_at)
$$;

create view v_archive_statistics as
select 'hot' as place, null::job_state as outcome, 'job' as relation, null::timestamptz as from_at,
       null::timestamptz as until_at, nullif(c.reltuples, -1)::bigint as jobs_estimated,
       pg_total_relation_size('job') + pg_total_relation_size('attempt') + pg_total_relation_size('transcript')
       + pg_total_relation_size('waiting_job') + pg_total_relation_size('ended_job') as bytes
  from pg_class c where c.oid = 'job'::regclass
union all
select 'archived', p.outcome, p.partition, p.from_at, p.until_at, p.jobs_estimated, p.bytes
  from archive_partitions() p;
comment on view v_archive_statistics is
    'Where jobs are kept and what they take: one row for the hot tables, one for each month of each outcome in the archive.';
comment on column v_archive_statistics.place is 'hot or archived';
comment on column v_archive_statistics.outcome is 'How the jobs of an archived month ended.';
comment on column v_archive_statistics.relation is 'The table; retention drops an archived one as a whole.';
comment on column v_archive_statistics.from_at is 'Jobs archived from then on …';
comment on column v_archive_statistics.until_at is '… until then; purged when this is older than the outcome''s retention.';
comment on column v_archive_statistics.jobs_estimated is 'By the last ANALYZE; null before the first.';
comment on column v_archive_statistics.bytes is 'On disk, with indexes.';

-- Makes the partitions for this month and the next, unless another node is at it. A new table is attached: to create it
-- as a partition would lock the archive against its readers. A reader that was planned before does not look into it, so
-- nothing is moved into it before this has committed.
create function make_archive_partitions(p_at timestamptz) returns int language plpgsql as $$
declare
    v_state  job_state;
    v_ahead  int;
    v_from   timestamp;
    v_parent text;
    v_name   text;
    v_made   int := 0;
begin
    if not pg_try_advisory_xact_lock(archive_lock()) then
        return 0;
    end if;
    foreach v_state in array array['completed', 'failed', 'cancelled']::job_state[] loop
        v_parent := 'archived_job_' || v_state;
        for v_ahead in 0..1 loop
            v_from := date_trunc('month', p_at at time zone 'UTC') + v_ahead * interval '1 month';
            v_name := v_parent || to_char(v_from, '_YYYY_MM');
            if to_regclass(v_name) is null then
                execute format('create table %I (like %I including all)', v_name, v_parent);
                execute format('alter table %I attach partition %I for values from (%L) to (%L)', v_parent, v_name,
                               v_from at time zone 'UTC', (v_from + interval '1 month') at time zone 'UTC');
                v_made := v_made + 1;
            end if;
        end loop;
    end loop;
    return v_made;
end
$$;
select make_archive_partitions(clock_timestamp());

-- Lanes whose finished jobs may be archived: the run ended p_after ago, and nothing of it waits, runs, or is still to be
-- rewritten or looked into. Analyses stay where they are: they are few, and are computed anew in place.
create function archivable_lanes(p_after interval) returns table (id bigint, run_id uuid) language sql stable as $$
    select l.id, l.run_id
      from lane l
      join run r on r.id = l.run_id
     where not l.is_archived and l.kind = 'probe:scenario' and not l.is_live and l.is_settled
       and r.completed_at <= clock_timestamp() - p_after and r.deleted_at is null
       -- See finish_runs.
       and (select count(*) filter (where s.is_live) from lane s where s.run_id = l.run_id) = 0
       and not exists (select from dead_letter d where d.run_id = l.run_id and d.status = 'pending')
$$;

-- Moves up to p_batch finished jobs into the archive and says how many; null when another node is at it. It waits for
-- nobody, and nobody who claims waits for it: it locks only lanes in which nothing is left to claim. The partitions of
-- this month are there.
create function archive_jobs(p_after interval, p_batch int) returns int language plpgsql
set jit = off
as $$
declare
    v_now   timestamptz := clock_timestamp();
    v_lane  bigint;
    v_n     int;
    v_moved int := 0;
begin
    if not pg_try_advisory_xact_lock(archive_lock()) then
        return null;
    end if;
    for v_lane in select a.id from archivable_lanes(p_after) a order by a.id limit p_batch loop
        exit when v_moved >= p_batch;
        perform from lane l where l.id = v_lane for update skip locked;
        continue when not found;
        -- Looked at again: what opens a run has its lanes locked first, so from here on the answer stays.
        continue when not exists (select from archivable_lanes(p_after) a where a.id = v_lane);
        with picked as materialized (
            -- All of them have ended. In the order of the index on the lane: the identity's.
            select j.id from job j
             where j.lane_id = v_lane
             order by j.scenario_id, j.sample limit p_batch - v_moved
               for update skip locked
            ), gone as (
                delete from job j where j.id = any (array(select p.id from picked p)) returning j.*
            ), tried as (
                delete from past_attempt a where a.job_id = any (array(select p.id from picked p)) returning a.*
            ), told as (
                delete from transcript t
                 where t.lane_id = v_lane and t.job_id = any (array(select p.id from picked p)) returning t.*
            ), attempts as (
                select t.job_id, jsonb_agg(to_jsonb(t) - 'job_id' order by t.number) as list
                  from tried t group by t.job_id
            )
            insert into archived_job
                   (id, lane_id, scenario_id, sample, state, is_suspect, cancel_requested, claims, epoch, epoch_claims,
                    failures, losses, losses_alone, throttles, throttled_ms, waits_since, run_at, node_id, claimed_at, finished_at,
                    error_code, error_message, error_retryable, archived_at, attempts, seq, model_version, turns,
                    usage, score, cost_usd, latency_ms, created_at)
            select g.id, g.lane_id, g.scenario_id, g.sample, g.state, g.is_suspect, g.cancel_requested, g.claims,
                   g.epoch, g.epoch_claims, g.failures, g.losses, g.losses_alone, g.throttles, g.throttled_ms, g.waits_since,
                   g.run_at, g.node_id, g.claimed_at, g.finished_at, g.error_code, g.error_message, g.error_retryable, v_now,
                   coalesce(a.list, '[]'), t.seq, t.model_version, t.turns, t.usage, t.score, t.cost_usd,
                   t.latency_ms, t.created_at
              from gone g
              left join attempts a on a.job_id = g.id
              left join told t on t.job_id = g.id;
        get diagnostics v_n = row_count;
        v_moved := v_moved + v_n;
        update lane l set is_archived = true
         where l.id = v_lane and not exists (select from job j where j.lane_id = v_lane);
    end loop;
    -- Maintenance leaves no record of what nobody can tell; a person's act does.
    if v_moved > 0 and nullif(current_setting('runlane.actor', true), '') is not null then
        perform record_act('archive.archived', 'queue', 'archived_job', null, null, jsonb_build_object('jobs', v_moved));
    end if;
    return v_moved;
end
$$;

-- Moves archived jobs back, as they were, and says how many there were. The caller holds their lanes.
create function unarchive_jobs(p_jobs bigint[]) returns int language plpgsql
set jit = off
as $$
declare
    v_lanes bigint[];
    v_n     int;
begin
    with gone as (
        delete from archived_job a where a.id = any (p_jobs) returning a.*
    ), back as (
        insert into job (id, lane_id, scenario_id, sample, state, is_suspect, cancel_requested, claims, epoch,
                         epoch_claims, failures, losses, losses_alone, throttles, throttled_ms, waits_since, run_at, node_id,
                         claimed_at, finished_at, error_code, error_message, error_retryable)
        overriding system value
        select g.id, g.lane_id, g.scenario_id, g.sample, g.state, g.is_suspect, g.cancel_requested, g.claims, g.epoch,
               g.epoch_claims, g.failures, g.losses, g.losses_alone, g.throttles, g.throttled_ms, g.waits_since, g.run_at,
               g.node_id, g.claimed_at, g.finished_at, g.error_code, g.error_message, g.error_retryable
          from gone g
    ), tried as (
        insert into past_attempt
        select a.* from gone g
         cross join lateral jsonb_array_elements(g.attempts) as e (attempt)
         cross join lateral jsonb_populate_record(null::past_attempt, e.attempt || jsonb_build_object('job_id', g.id)) as a
    ), told as (
        insert into transcript (job_id, seq, lane_id, scenario_id, model_version, turns, usage, score, cost_usd,
                                latency_ms, created_at)
        overriding system value
        select g.id, g.seq, g.lane_id, g.scenario_id, g.model_version, g.turns, g.usage, g.score, g.cost_usd,
               g.latency_ms, g.created_at
          from gone g where g.seq is not null
    )
    select array_agg(distinct g.lane_id), count(*) into v_lanes, v_n from gone g;
    update lane l set is_archived = false where l.id = any (v_lanes) and l.is_archived;
    return v_n;
end
$$;

-- Drops a partition of the archive, and says how many jobs went with it; null when another node is at it, or while jobs
-- in it belong to a run that has been opened again or that somebody looks into. The counters go on counting them.
create function purge_partition(p_partition text) returns bigint language plpgsql as $$
declare
    v_outcome job_state;
    v_bytes   bigint;
    v_lanes   bigint[];
    v_jobs    bigint;
begin
    if not pg_try_advisory_xact_lock(archive_lock()) then
        return null;
    end if;
    select p.outcome, p.bytes into v_outcome, v_bytes from archive_partitions() p where p.partition = p_partition;
    if not found then
        raise exception '% is no partition of the archive', p_partition using errcode = 'undefined_table';
    end if;
    execute format('select array_agg(distinct lane_id) from %I', p_partition) into v_lanes;
    -- Lanes before jobs: nobody takes jobs out of the archive without their lane.
    perform from lane l where l.id = any (v_lanes) order by l.id for update;
    if purge_is_held(v_lanes) then
        return null;
    end if;
    -- Readers hold the drop up, and the drop the readers behind it: rather try again later.
    perform set_config('lock_timeout', '1s', true);
    execute format('lock table %I in share mode', p_partition);
    execute format(
        'with gone as materialized (select lane_id, count(*)::int as n from %I group by lane_id),
              counted as (update lane l set %2$I = l.%2$I + g.n from gone g where l.id = g.lane_id)
         select coalesce(sum(n), 0) from gone', p_partition, 'purged_' || v_outcome) into v_jobs;
    if v_outcome = 'failed' then
        execute format(
            'update lane_error e set failed = e.failed - g.n
               from (select lane_id, error_code, count(*)::int as n from %I group by lane_id, error_code) as g
              where e.lane_id = g.lane_id and e.error_code = g.error_code', p_partition);
        delete from lane_error e where e.lane_id = any (v_lanes) and e.failed = 0;
    end if;
    execute format('drop table %I', p_partition);
    perform record_act('archive.purged', 'queue', p_partition, null,
                       jsonb_build_object('jobs', v_jobs, 'bytes', v_bytes));
    return v_jobs;
end
$$;

-- Whether any of these lanes belongs to a run that is open again, or that has a dead letter to be looked into.
create function purge_is_held(p_lanes bigint[]) returns boolean language sql stable as $$
    select exists (
        select from lane l join run r on r.id = l.run_id
         where l.id = any (p_lanes)
           and (r.completed_at is null
                or exists (select from lane s where s.run_id = r.id and s.is_live)
                or exists (select from dead_letter d where d.run_id = r.id and d.status = 'pending')))
$$;
