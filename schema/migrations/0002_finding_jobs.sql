-- Where jobs are found by their state: tables beside `job`, which follow it, and the ranges of lanes.

-- The jobs that wait and are not fresh, in the order in which a lane's are claimed.
create table waiting_job (
    lane_id     bigint not null,
    job_id      bigint not null,
    run_at      timestamptz not null,
    -- Since when it waits for another attempt; null before the first of its epoch.
    waits_since timestamptz
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
create index waiting_job_due on waiting_job (lane_id, run_at, job_id);
create unique index waiting_job_listing on waiting_job (lane_id, job_id);

-- What a node has taken at once: where active jobs are found. It goes when the last of them has ended.
create table claim (
    id         bigint generated always as identity primary key,
    node_id    uuid not null,
    claimed_at timestamptz not null,
    jobs       bigint[] not null,
    -- Those of these jobs, each once; perhaps some more.
    lanes      bigint[] not null,
    -- How many of the jobs have not ended.
    unended    int not null
) with (fillfactor = 50);
-- A claim of many jobs does not fit into a row; to compress it first would take longer than to write it.
alter table claim alter jobs set storage external, alter lanes set storage external;

-- No live lane has a smaller id. Where anything waits or runs is asked for all the time; while somebody's transaction is open
-- for long, all lanes that have been live since it began stand in the index of live lanes, and each reader would pass them.
create table live_mark (
    live_from bigint not null
);
insert into live_mark (live_from) values (0);

-- Held shared, until the commit, by whoever brings a lane to life.
create function lanes_come() returns bigint language sql immutable as $$ select 7243398252 $$;

create function keep_live_mark() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(lanes_come());
    if tg_op = 'INSERT' then
        update live_mark m set live_from = n.id
          from (select min(l.id) as id from new_lanes l where l.is_live) as n where m.live_from > n.id;
    else
        update live_mark m set live_from = new.id where m.live_from > new.id;
    end if;
    return null;
end
$$;
create trigger lanes_come_alive after insert on lane referencing new table as new_lanes
    for each statement execute function keep_live_mark();
create trigger lane_comes_alive after update of is_live on lane for each row when (new.is_live and not old.is_live)
    execute function keep_live_mark();

-- Moves the mark up to the first live lane, or to the last of all, unless a lane that cannot be seen yet is coming to life.
create function raise_live_mark() returns void language plpgsql as $$
begin
    if pg_try_advisory_xact_lock(lanes_come()) then
        update live_mark m set live_from = n.id
          from (select coalesce((select min(l.id) from lane l
                                  where l.is_live and l.id >= (select o.live_from from live_mark o)),
                                (select max(l.id) from lane l)) as id) as n
         where m.live_from < n.id;
    end if;
end
$$;

-- The jobs that failed or were cancelled.
create table ended_job (
    lane_id     bigint not null,
    state       job_state not null check (state in ('failed', 'cancelled')),
    job_id      bigint not null,
    finished_at timestamptz not null,
    error_code  text,
    primary key (lane_id, state, job_id)
);
-- Run.recentTasks.
create index ended_job_last on ended_job (lane_id, finished_at, job_id) where state = 'failed';
-- The filter on error codes.
create index ended_job_code on ended_job (lane_id, error_code, job_id) where state = 'failed';

-- Where each job that is not archived stands. The row of a job that was claimed once and has not ended does not say that it is
-- active, nor with whom: its lane's fresh_after does, and the claim that took it.
create view current_job as
select j.id, j.lane_id, j.scenario_id, j.sample,
       case when j.is_fresh and j.id <= (select l.fresh_after from lane l where l.id = j.lane_id) then 'active'
            else j.state end as state,
       j.is_suspect, j.cancel_requested,
       case when j.is_fresh and j.id <= (select l.fresh_after from lane l where l.id = j.lane_id) then 1
            else j.claims end as claims,
       j.epoch, j.epoch_claims, j.failures, j.losses, j.losses_alone, j.throttles, j.throttled_ms, j.waits_since, j.run_at,
       case when j.is_fresh and j.id <= (select l.fresh_after from lane l where l.id = j.lane_id)
            then (select c.node_id from claim c where j.id = any (c.jobs) limit 1) else j.node_id end as node_id,
       case when j.is_fresh and j.id <= (select l.fresh_after from lane l where l.id = j.lane_id)
            then (select c.claimed_at from claim c where j.id = any (c.jobs) limit 1) else j.claimed_at end as claimed_at,
       j.finished_at, j.error_code, j.error_message, j.error_retryable
  from job j;
comment on view current_job is 'Every job that is not archived, as it stands now. Ask this, not the table.';

-- Puts a job where those of its state are found; one that completed is found nowhere.
create function place_job(p_job job) returns void language plpgsql as $$
declare
    v_claim bigint;
begin
    case p_job.state
        when 'pending' then
            insert into waiting_job (lane_id, job_id, run_at, waits_since)
            values (p_job.lane_id, p_job.id, p_job.run_at,
                    case when p_job.claims > p_job.epoch_claims then p_job.waits_since end);
        -- No job is made active but by a claim; what fills tables by hand does it all the same.
        when 'active' then
            insert into claim (node_id, claimed_at, jobs, lanes, unended)
            values (p_job.node_id, p_job.claimed_at, array[p_job.id], array[p_job.lane_id], 1) returning id into v_claim;
            update job j set claim_id = v_claim where j.id = p_job.id;
        when 'failed', 'cancelled' then
            insert into ended_job (lane_id, state, job_id, finished_at, error_code)
            values (p_job.lane_id, p_job.state, p_job.id, p_job.finished_at, p_job.error_code);
        else null;
    end case;
end
$$;

-- The tables beside `job` follow it, whoever changes it. What all jobs go through does without these triggers, which would
-- cost more than the rest of it: a claim takes its jobs out itself (runlane.follow is off then), and one that completes leaves
-- no row. None of them comes before an update: PostgreSQL would lock each row beforehand, which costs as much as writing it.
create function follow_job() returns trigger language plpgsql as $$
begin
    if new.is_fresh then
        -- Its time was changed, so its lane would not find it any more; unless a node has it.
        update job j set is_fresh = false from lane l where j.id = new.id and l.id = j.lane_id and j.id > l.fresh_after;
        return null;
    end if;
    if old.is_fresh then
        -- Whoever changes what waits has the lane locked. What was taken does not count as fresh any more.
        update lane l set fresh = l.fresh - 1 where l.id = new.lane_id and new.id > l.fresh_after;
    end if;
    if old.state = 'pending' and new.state = 'pending' then
        insert into waiting_job as w (lane_id, job_id, run_at, waits_since)
        values (new.lane_id, new.id, new.run_at, case when new.claims > new.epoch_claims then new.waits_since end)
        on conflict (lane_id, job_id) do update set run_at = excluded.run_at, waits_since = excluded.waits_since;
        return null;
    end if;
    case old.state
        when 'pending' then delete from waiting_job w where w.lane_id = old.lane_id and w.job_id = old.id;
        when 'failed', 'cancelled' then
            delete from ended_job e where e.lane_id = old.lane_id and e.state = old.state and e.job_id = old.id;
        else null;
    end case;
    perform place_job(new);
    return null;
end
$$;
create trigger job_moves after update of state, is_fresh, run_at, waits_since, claims, epoch_claims on job for each row
    when ((old.state is distinct from new.state and not (new.state = 'completed' and (old.state = 'active' or old.is_fresh))
           or old.state = 'pending' and new.state = 'pending'
              and (old.is_fresh, old.run_at, old.waits_since, old.claims > old.epoch_claims)
                  is distinct from (new.is_fresh, new.run_at, new.waits_since, new.claims > new.epoch_claims))
          and coalesce(current_setting('runlane.follow', true), '') <> 'off')
    execute function follow_job();

create function follow_new_job() returns trigger language plpgsql as $$
begin
    perform place_job(new);
    return null;
end
$$;
create trigger job_comes after insert on job for each row
    when (not new.is_fresh and new.state <> 'completed') execute function follow_new_job();

create function follow_gone_jobs() returns trigger language plpgsql
-- Few rows of many: never by reading all.
set enable_nestloop = on
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    delete from waiting_job w using old_rows o where o.state = 'pending' and w.lane_id = o.lane_id and w.job_id = o.id;
    delete from ended_job e using old_rows o
     where o.state in ('failed', 'cancelled') and e.lane_id = o.lane_id and e.state = o.state and e.job_id = o.id;
    return null;
end
$$;
create trigger job_goes after delete on job referencing old table as old_rows
    for each statement execute function follow_gone_jobs();

-- Every job that a node has, by way of what it was claimed with.
create view active_job as
select j.id, j.lane_id, j.scenario_id, j.epoch, j.epoch_claims, case when j.is_fresh then 1 else j.claims end as claims,
       c.claimed_at, j.cancel_requested, c.node_id
  from claim c
 cross join lateral (
    select j.* from job j
     where j.id = any (c.jobs) and (j.is_fresh or j.state = 'active' and j.claim_id = c.id)
    offset 0
 ) as j;
comment on view active_job is 'The jobs that nodes run now.';

-- The fresh jobs of a lane after an id, in the order in which they are claimed.
create function fresh_jobs(p_lane lane, p_after bigint default 0)
returns table (job_id bigint, run_at timestamptz, scenario_id bigint) language sql stable as $$
    -- By the key: by the index on their identity all jobs of the lane would be read.
    select j.id, j.run_at, j.scenario_id
      from job j
     where j.id > greatest(p_lane.fresh_after, p_after) and j.id <= p_lane.fresh_until
       and j.lane_id + 0 = p_lane.id and j.state = 'pending' and j.is_fresh
     order by j.id
     limit p_lane.fresh
$$;

-- The jobs of a lane that wait, in the order in which they are claimed; at most so many.
create function waiting_jobs(p_lane lane, p_limit bigint)
returns table (job_id bigint, run_at timestamptz, is_fresh boolean) language sql stable as $$
    select w.*
      from ((select q.job_id, q.run_at, false from waiting_job q
              where q.lane_id = p_lane.id order by q.run_at, q.job_id limit p_limit)
            union all
            (select f.job_id, f.run_at, true from fresh_jobs(p_lane) as f limit p_limit)
           ) as w (job_id, run_at, is_fresh)
     order by w.run_at, w.job_id
     limit p_limit
$$;

-- Milliseconds until the first waiting job of these kinds that was not due yet at p_since becomes due; null when none is
-- known. Jobs that were due then and were not claimed wait for something else.
create function next_due_ms(p_kinds job_kind[], p_since timestamptz) returns bigint language plpgsql as $$
declare
    v_due_at timestamptz;
begin
    -- Not in SQL, which would be planned in every transaction.
    select min(d.run_at) into v_due_at
      from lane l
     cross join lateral (
        select w.run_at from waiting_job w
         where w.lane_id = l.id and w.run_at > p_since
         order by w.run_at limit 1
     ) as d
     where l.is_live and l.id >= (select m.live_from from live_mark m)
       and l.kind = any (p_kinds) and l.is_open and not l.is_paused and l.held_at is null and l.pending > 0;
    -- greatest() ignores nulls: alone it would say 0, and an idle node would ask without a pause.
    return case when v_due_at is not null
                then greatest(0, ceil(extract(epoch from v_due_at - clock_timestamp()) * 1000))::bigint end;
end
$$;

-- Writes down that the waiting jobs of a closed lane, which the caller has locked, are cancelled: so many of them. Returns how
-- many it was.
create function settle_lane(p_lane bigint, p_limit bigint) returns bigint language plpgsql
set runlane.follow = 'off'
as $$
declare
    v_closed_at timestamptz := (select l.closed_at from lane l where l.id = p_lane);
    v_jobs      bigint[];
    v_fresh     int;
    v_last      bigint;
begin
    select array_agg(w.job_id), count(*) filter (where w.is_fresh), max(w.job_id) filter (where w.is_fresh)
      into v_jobs, v_fresh, v_last
      from lane l cross join lateral waiting_jobs(l, p_limit) as w
     where l.id = p_lane;
    update job j set state = 'cancelled', is_fresh = false, finished_at = v_closed_at where j.id = any (v_jobs);
    delete from waiting_job w where w.lane_id = p_lane and w.job_id = any (v_jobs);
    insert into ended_job (lane_id, state, job_id, finished_at, error_code)
    select j.lane_id, j.state, j.id, j.finished_at, j.error_code from job j where j.id = any (v_jobs);
    update lane l set fresh = l.fresh - v_fresh, fresh_after = v_last where l.id = p_lane and v_fresh > 0;
    return coalesce(cardinality(v_jobs), 0);
end
$$;
