-- One leader at a time for what only one node may do, and what counts as stale.

-- Who leads in which duty. The leader holds an advisory lock on a session of its own, so its end, however it comes, makes
-- room for the next; the epoch grows with every leader, and every write of a leader names it. Lock order everywhere:
-- leadership before the gate.
create table leadership (
    duty          text primary key,
    epoch         bigint not null check (epoch >= 1),
    node_id       uuid not null,
    since         timestamptz not null,
    -- The session that holds the lock. The start tells it from a later one with the same process id.
    backend_pid   int not null,
    backend_start timestamptz not null
);

-- Becomes the leader, on the session that is to hold it: returns the new epoch, or null while somebody else leads.
create function take_leadership(p_duty text, p_node uuid) returns bigint language plpgsql as $$
declare
    v_epoch bigint;
begin
    if not pg_try_advisory_lock(72433, hashtext(p_duty)) then
        return null;
    end if;
    insert into leadership as l (duty, epoch, node_id, since, backend_pid, backend_start)
    select p_duty, 1, p_node, clock_timestamp(), a.pid, a.backend_start
      from pg_stat_activity a where a.pid = pg_backend_pid()
    on conflict (duty) do update
       set epoch = l.epoch + 1, node_id = excluded.node_id, since = excluded.since,
           backend_pid = excluded.backend_pid, backend_start = excluded.backend_start
    returning l.epoch into v_epoch;
    return v_epoch;
end
$$;

-- Whether nobody leads in a duty. The session of a leader whose node is gone (frozen, cut off: its session may live on),
-- or which this very node has given up, is ended first.
create function leadership_is_free(p_duty text, p_node uuid) returns boolean language plpgsql as $$
declare
    v_leader leadership;
begin
    select l.* into v_leader
      from leadership l
      join pg_stat_activity a on a.pid = l.backend_pid and a.backend_start = l.backend_start
     where l.duty = p_duty;
    if not found then
        return true;
    end if;
    if v_leader.node_id <> p_node and exists (select from node n where n.id = v_leader.node_id) then
        return false;
    end if;
    return pg_terminate_backend(v_leader.backend_pid, 1000);
end
$$;

-- What every writing transaction of a leader begins with: fails unless it is still the latest. The row stays locked until
-- the commit, so that no successor begins while a write of its predecessor is on its way.
create function assert_leader(p_duty text, p_epoch bigint) returns void language plpgsql as $$
begin
    perform from leadership l where l.duty = p_duty and l.epoch = p_epoch for share;
    if not found then
        raise exception 'epoch % of the leader for % is over', p_epoch, p_duty using errcode = 'RL001';
    end if;
end
$$;

-- What counts as stale. A pause starts the clock anew: of runs, lanes and the queue it is known when they were resumed.

create type staleness_stage as enum ('waiting', 'waiting_for_retry', 'in_process', 'run');
create type staleness_health as enum ('ok', 'warning', 'stale');
create type staleness_action as enum ('REPORT', 'REQUEUE', 'DLQ', 'FAIL');
comment on type staleness_stage is 'What takes its time: a job that waits, waits for another attempt or is worked on, or a whole run.';
comment on type staleness_health is 'How near something is to its threshold: warning from the warning percentage on, stale at the threshold.';
comment on type staleness_action is 'What is done at the threshold. REQUEUE and DLQ are for jobs, FAIL is for runs.';

alter table queue_state add column resumed_at timestamptz;
alter table lane add column resumed_at timestamptz;
alter table run
    add column resumed_at timestamptz,
    -- What the definition says about staleness: read for every live lane, so not from the whole snapshot each time.
    add column lifecycle jsonb generated always as (definition_snapshot -> 'lifecycle') stored;
-- Runs are kept for ever, and few of them are under way.
create index run_under_way on run (id) where status in ('PENDING', 'RUNNING', 'PAUSED');
-- The jobs of a lane that wait for another attempt, longest first.
create index waiting_job_retrying on waiting_job (lane_id, waits_since, job_id) where waits_since is not null;

create function note_resume() returns trigger language plpgsql as $$
begin
    new.resumed_at := clock_timestamp();
    return new;
end
$$;
create trigger queue_is_resumed before update of is_paused on queue_state
    for each row when (old.is_paused and not new.is_paused) execute function note_resume();
-- A lane that is held waits for a person, as under a pause.
create trigger lane_is_resumed before update of is_paused, held_at on lane
    for each row when (old.is_paused and not new.is_paused or old.held_at is not null and new.held_at is null)
    execute function note_resume();
create trigger run_is_resumed before update of status on run
    for each row when (new.status = 'RUNNING' and old.status in ('PAUSED', 'COMPLETED', 'FAILED'))
    execute function note_resume();

-- The installation's thresholds: written from the configuration by the node that leads, read by everything else.
create table staleness_threshold (
    stage        staleness_stage not null,
    -- Null for runs.
    kind         job_kind,
    threshold_ms bigint not null check (threshold_ms >= 1),
    warn_percent smallint not null check (warn_percent between 1 and 100),
    action       staleness_action not null,
    constraint staleness_threshold_key unique nulls not distinct (stage, kind),
    check ((stage = 'run') = (kind is null))
);

-- How far reports have come in the jobs of a lane, which are looked at in the order in which they become stale. An
-- action of its own has a mark of its own: a policy that begins to act also acts on what was only reported. No foreign keys
-- here: their checks would lock the lanes and runs that claims lock.
create table staleness_mark (
    lane_id bigint not null,
    stage   staleness_stage not null,
    health  staleness_health not null,
    action  staleness_action not null,
    at      timestamptz not null,
    job_id  bigint not null,
    primary key (lane_id, stage, health, action)
);

-- What was said and done about jobs in process: once for each epoch of a job.
create table staleness_notice (
    job_id      bigint not null,
    epoch       int not null,
    warned_at   timestamptz,
    reported_at timestamptz,
    -- How often a claim was taken back.
    requeues    int not null default 0,
    primary key (job_id, epoch)
);

-- What was said about runs: once for each time that their clock began.
create table staleness_run_notice (
    run_id uuid not null,
    since  timestamptz not null,
    health staleness_health not null,
    at     timestamptz not null,
    primary key (run_id, since, health)
);

-- What is done at the threshold. A definition's autoDlqOnTimeout makes a dead letter of what is not to be requeued, and
-- forbids it when it is false; runs are failed only where their definition says so.
create function staleness_action_of(p_stage staleness_stage, p_lifecycle jsonb, p_installation staleness_action)
returns staleness_action language sql immutable as $$
    select case
        when p_stage = 'run' then
            case when (p_lifecycle ->> 'autoFailOnTimeout')::boolean then 'FAIL' else 'REPORT' end
        when (p_lifecycle ->> 'autoDlqOnTimeout')::boolean
             and coalesce(p_lifecycle ->> 'stalenessAction', '') <> 'REQUEUE' then 'DLQ'
        when not (p_lifecycle ->> 'autoDlqOnTimeout')::boolean
             and coalesce(p_lifecycle ->> 'stalenessAction', p_installation::text) = 'DLQ' then 'REPORT'
        else coalesce(p_lifecycle ->> 'stalenessAction', p_installation::text)
    end::staleness_action
$$;

-- What a definition says in place of the installation's threshold; null where it says nothing.
create function staleness_override_ms(p_stage staleness_stage, p_lifecycle jsonb) returns bigint
language sql immutable as $$
    select 60000 * (p_lifecycle ->> case p_stage
        when 'waiting' then 'maxWaitingForDependenciesMinutes'
        when 'waiting_for_retry' then 'maxWaitingForRetryMinutes'
        when 'in_process' then 'maxStepsInProcessMinutes'
        when 'run' then 'maxDurationMinutes' end)::bigint
$$;

-- The thresholds in force, for each lane with something that waits or runs and for each run: what the detector, the
-- monitoring view and every reader go by. Those of runs stand alone as well: who asks for a run's reads no lane.
create view v_run_thresholds as
select r.id as run_id, r.status, r.started_at, r.resumed_at, t.stage, e.threshold_ms, e.threshold_ms * t.warn_percent / 100 as warn_ms,
       staleness_action_of(t.stage, r.lifecycle, t.action) as action
  from run r
  join staleness_threshold t on t.stage = 'run'
 cross join lateral (select coalesce(staleness_override_ms(t.stage, r.lifecycle), t.threshold_ms) as threshold_ms) as e
 where r.status in ('PENDING', 'RUNNING', 'PAUSED');
comment on view v_run_thresholds is 'The threshold in force for each run: the rows of runs in v_staleness_thresholds.';

create view v_staleness_thresholds as
select l.id as lane_id, l.run_id, l.kind, l.model, t.stage, e.threshold_ms, e.threshold_ms * t.warn_percent / 100 as warn_ms,
       staleness_action_of(t.stage, r.lifecycle, t.action) as action,
       coalesce((r.lifecycle ->> 'autoDlqOnTimeout')::boolean, false) as gives_up
  from lane l
  join run r on r.id = l.run_id
  join staleness_threshold t on t.kind = l.kind
 cross join lateral (select coalesce(staleness_override_ms(t.stage, r.lifecycle), t.threshold_ms) as threshold_ms) as e
 where l.is_live
union all
select null, t.run_id, null, null, t.stage, t.threshold_ms, t.warn_ms, t.action, false
  from v_run_thresholds t;

-- In which stage a job is.
create function staleness_stage_of(p_state job_state, p_claims int, p_epoch_claims int) returns staleness_stage
language sql immutable as $$
    select case when p_state = 'active' then 'in_process'
                when p_claims > p_epoch_claims then 'waiting_for_retry'
                else 'waiting' end::staleness_stage
$$;

create function staleness_health_of(p_age_ms bigint, p_warn_ms bigint, p_threshold_ms bigint) returns staleness_health
language sql immutable as $$
    select case when p_age_ms >= p_threshold_ms then 'stale' when p_age_ms >= p_warn_ms then 'warning' else 'ok' end
           ::staleness_health
$$;

create view v_run_staleness as
select t.run_id, t.status, t.stage, s.since, p.is_paused, a.age_ms, t.threshold_ms,
       staleness_health_of(a.age_ms, t.warn_ms, t.threshold_ms) as health, t.action
  from v_run_thresholds t
 cross join queue_state q
 cross join lateral (select greatest(t.started_at, t.resumed_at, q.resumed_at) as since) as s
 cross join lateral (select t.status = 'PAUSED' or q.is_paused as is_paused) as p
 cross join lateral (
    select case when p.is_paused then 0
                else greatest(0, floor(extract(epoch from clock_timestamp() - s.since) * 1000)) end::bigint as age_ms
 ) as a
 where t.status in ('RUNNING', 'PAUSED') and t.started_at is not null;
comment on view v_run_staleness is
    'Every run that is under way, with how long it has been so and what then follows: the rows of runs in v_task_staleness_monitoring, without a look at any job.';

create view v_task_staleness_monitoring as
select j.id as job_id, l.run_id, l.id as lane_id, l.kind, l.model, j.state::text as state, t.stage, s.since, p.is_paused,
       a.age_ms, t.threshold_ms, round(100.0 * a.age_ms / t.threshold_ms, 1) as percent,
       staleness_health_of(a.age_ms, t.warn_ms, t.threshold_ms) as health, t.action
  from lane l
  join current_job j on j.lane_id = l.id and j.state in ('pending', 'active')
  join v_staleness_thresholds t on t.lane_id = l.id
                               and t.stage = staleness_stage_of(j.state, j.claims, j.epoch_claims)
 cross join queue_state q
 cross join lateral (
    select case t.stage when 'in_process' then j.claimed_at
                        when 'waiting' then greatest(j.run_at, l.resumed_at, q.resumed_at)
                        else greatest(j.waits_since, l.resumed_at, q.resumed_at) end as since
 ) as s
 cross join lateral (select j.state = 'pending' and (l.is_paused or l.held_at is not null or q.is_paused) as is_paused) as p
 cross join lateral (
    select case when p.is_paused then 0
                else greatest(0, floor(extract(epoch from clock_timestamp() - s.since) * 1000)) end::bigint as age_ms
 ) as a
 where l.is_live and (l.is_open or j.state = 'active')
union all
select null, r.run_id, null, null, null, r.status::text, r.stage, r.since, r.is_paused,
       r.age_ms, r.threshold_ms, round(100.0 * r.age_ms / r.threshold_ms, 1), r.health, r.action
  from v_run_staleness r;
comment on view v_task_staleness_monitoring is
    'Every job that waits or runs, and every run that is under way, with how long it has been so and what then follows. A pause starts the clock anew. Reading all of it reads every waiting job: narrow it by job_id, lane_id or run_id.';
comment on column v_task_staleness_monitoring.job_id is 'The job; null in the rows of runs.';
comment on column v_task_staleness_monitoring.state is 'The state of the job, or the status of the run.';
comment on column v_task_staleness_monitoring.stage is 'waiting: for its first attempt; waiting_for_retry: for its next; in_process: a node works on it; run: the whole run.';
comment on column v_task_staleness_monitoring.since is 'When the clock began: what waits is counted from when it may start, or from the end of the last pause.';
comment on column v_task_staleness_monitoring.is_paused is 'Nothing is stale while it is paused.';
comment on column v_task_staleness_monitoring.percent is 'The age in percent of the threshold.';
comment on column v_task_staleness_monitoring.health is 'ok; warning from the warning percentage on (80 unless configured); stale from the threshold on.';
comment on column v_task_staleness_monitoring.action is 'What is done at the threshold: REPORT, REQUEUE, DLQ (a dead letter), or FAIL (the run).';
comment on view v_staleness_thresholds is
    'The thresholds in force for each lane and run: the definition''s lifecycle where it says something, else the installation''s.';

-- The jobs of a lane that wait in a stage, in the order in which they become stale, beyond a place and up to a time. What
-- waits for another attempt and is due already stands among the others as well: is_it says which belong to the stage.
create function waiting_of_lane(
    p_lane bigint, p_stage staleness_stage, p_after timestamptz, p_after_job bigint, p_until timestamptz, p_limit bigint,
    -- Whether those of the other stage are passed over or returned, and count towards the limit.
    p_passes_over boolean
) returns table (job_id bigint, at timestamptz, is_it boolean) language plpgsql stable as $$
begin
    if p_stage = 'waiting' then
        return query
        select w.*
          from ((select q.job_id, q.run_at, q.waits_since is null from waiting_job q
                  where q.lane_id = p_lane and q.run_at <= p_until
                    and (q.run_at, q.job_id) > (p_after, p_after_job) and (not p_passes_over or q.waits_since is null)
                  order by q.run_at, q.job_id limit p_limit)
                union all
                (select f.job_id, f.run_at, true
                   from lane l
                  cross join lateral fresh_jobs(l, case when p_after = l.fresh_at then p_after_job else 0 end) as f
                  where l.id = p_lane and l.fresh_at <= p_until and l.fresh_at >= p_after limit p_limit)
               ) as w (job_id, run_at, is_it)
         order by w.run_at, w.job_id limit p_limit;
    elsif p_stage = 'waiting_for_retry' then
        return query
        select w.job_id, w.waits_since, true from waiting_job w
         where w.lane_id = p_lane and w.waits_since <= p_until
           and (w.waits_since, w.job_id) > (p_after, p_after_job)
         order by w.waits_since, w.job_id limit p_limit;
    end if;
end
$$;

-- The jobs that are not ok, lane by lane and stage by stage, in each those that were first to become so: the list that
-- people see. It reads what it returns, and no more. Null narrows nothing.
create function stale_jobs(
    p_run uuid, p_kinds job_kind[], p_stage staleness_stage, p_health staleness_health,
    -- Only what follows this place.
    p_after_lane bigint, p_after_stage staleness_stage, p_after timestamptz, p_after_job bigint, p_limit bigint
)
returns table (job_id bigint, run_id uuid, lane_id bigint, kind job_kind, model text, stage staleness_stage, at timestamptz,
               since timestamptz, age_ms bigint, threshold_ms bigint, health staleness_health, action staleness_action)
language plpgsql stable set jit = off as $$
#variable_conflict use_column
declare
    v_now  timestamptz := clock_timestamp();
    v_left bigint := p_limit;
    v_n    bigint;
    v      record;
begin
    for v in
        select t.*, p.resumed_at, c.stale_from, c.until,
               case when (t.lane_id, t.stage) = (p_after_lane, p_after_stage) then greatest(p_after, c.from)
                    else c.from end as beyond,
               case when (t.lane_id, t.stage) = (p_after_lane, p_after_stage) and p_after >= c.from then p_after_job
                    -- The place where staleness begins is not among the warned.
                    when p_health = 'warning' then 9223372036854775807 else 0 end as beyond_job
          from v_staleness_thresholds t
          join lane l on l.id = t.lane_id
         cross join queue_state q
         cross join lateral (
            select case when t.stage <> 'in_process' then greatest(l.resumed_at, q.resumed_at) end as resumed_at
         ) as p
         cross join lateral (
            select v_now - interval '1 millisecond' * t.threshold_ms as stale_from,
                   v_now - interval '1 millisecond' * case p_health when 'stale' then t.threshold_ms else t.warn_ms end
                   as until,
                   case p_health when 'warning' then v_now - interval '1 millisecond' * t.threshold_ms
                                 else '-infinity' end as from
         ) as c
         where coalesce((t.lane_id, t.stage) >= (p_after_lane, p_after_stage), true)
           and (p_run is null or t.run_id = p_run)
           and (p_kinds is null or t.kind = any (p_kinds))
           and (p_stage is null or t.stage = p_stage)
           and coalesce(p.resumed_at <= c.until, true)
           and (t.stage = 'in_process' or l.is_open and not l.is_paused and l.held_at is null and not q.is_paused)
           -- Lanes without any cost a look at an index.
           and case t.stage
               when 'waiting' then exists (
                   select from waiting_job w where w.lane_id = t.lane_id and w.run_at <= c.until)
                    or l.fresh > 0 and l.fresh_at <= c.until
               when 'waiting_for_retry' then exists (
                   select from waiting_job w where w.lane_id = t.lane_id and w.waits_since <= c.until)
               else l.active > 0 end
         order by t.lane_id, t.stage
    loop
        return query
        select w.job_id, v.run_id, v.lane_id, v.kind, v.model, v.stage, w.at, s.since, a.age_ms, v.threshold_ms,
               staleness_health_of(a.age_ms, v.warn_ms, v.threshold_ms), v.action
          from (
            select * from waiting_of_lane(v.lane_id, v.stage, v.beyond, v.beyond_job, v.until, v_left, true)
            union all
            select * from (
                select j.id, j.claimed_at, true from active_job j
                 where v.stage = 'in_process' and j.lane_id = v.lane_id
                   and j.claimed_at <= v.until and (j.claimed_at, j.id) > (v.beyond, v.beyond_job)
                 order by j.claimed_at, j.id limit v_left
            ) as active
          ) as w
         cross join lateral (select greatest(w.at, v.resumed_at) as since) as s
         cross join lateral (select floor(extract(epoch from v_now - s.since) * 1000)::bigint as age_ms) as a
         where p_health is null or staleness_health_of(a.age_ms, v.warn_ms, v.threshold_ms) = p_health
         order by w.at, w.job_id;
        get diagnostics v_n = row_count;
        v_left := v_left - v_n;
        exit when v_left <= 0;
    end loop;
end
$$;
