-- Where jobs are found by their state: tables beside `job`, which follow it.

-- The jobs that wait, in the order in which a lane's are claimed.
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
    -- How many of them have not ended.
    unended    int not null
) with (fillfactor = 50);

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

-- The tables behind `job` follow it, whoever changes it. What all jobs go through does so without these triggers, which
-- would cost more than the rest of it: a claim takes its jobs out of waiting_job itself, and a job that completes leaves no row.
create function follow_job() returns trigger language plpgsql as $$
declare
    v_claim bigint;
begin
    if old.state = 'pending' and new.state = 'pending' then
        update waiting_job w
           set run_at = new.run_at, waits_since = case when new.claims > new.epoch_claims then new.waits_since end
         where w.lane_id = new.lane_id and w.job_id = new.id;
        return null;
    end if;
    case old.state
        when 'pending' then delete from waiting_job w where w.lane_id = old.lane_id and w.job_id = old.id;
        when 'failed', 'cancelled' then
            delete from ended_job e where e.lane_id = old.lane_id and e.state = old.state and e.job_id = old.id;
        else null;
    end case;
    case new.state
        when 'pending' then
            insert into waiting_job (lane_id, job_id, run_at, waits_since)
            values (new.lane_id, new.id, new.run_at,
                    case when new.claims > new.epoch_claims then new.waits_since end);
        when 'active' then
            insert into claim (node_id, claimed_at, jobs, unended)
            values (new.node_id, new.claimed_at, array[new.id], 1) returning id into v_claim;
            update job j set claim_id = v_claim where j.id = new.id;
        when 'failed', 'cancelled' then
            insert into ended_job (lane_id, state, job_id, finished_at, error_code)
            values (new.lane_id, new.state, new.id, new.finished_at, new.error_code);
        else null;
    end case;
    return null;
end
$$;
create trigger job_moves after update of state, run_at, waits_since, claims, epoch_claims on job for each row
    when (old.state is distinct from new.state and (old.state, new.state) <> ('active', 'completed')
          and coalesce(current_setting('runlane.claims', true), '') <> 'on'
          or old.state = 'pending' and new.state = 'pending'
             and (old.run_at, old.waits_since, old.claims > old.epoch_claims)
                 is distinct from (new.run_at, new.waits_since, new.claims > new.epoch_claims))
    execute function follow_job();

create function follow_new_jobs() returns trigger language plpgsql as $$
begin
    insert into waiting_job (lane_id, job_id, run_at, waits_since)
    select n.lane_id, n.id, n.run_at, case when n.claims > n.epoch_claims then n.waits_since end
      from new_rows n where n.state = 'pending';
    insert into ended_job (lane_id, state, job_id, finished_at, error_code)
    select n.lane_id, n.state, n.id, n.finished_at, n.error_code from new_rows n where n.state in ('failed', 'cancelled');
    -- No job is made active; what fills tables by hand does it all the same.
    if exists (select from new_rows n where n.state = 'active') then
        with claimed as (
            insert into claim (node_id, claimed_at, jobs, unended)
            select n.node_id, n.claimed_at, array_agg(n.id), count(*) from new_rows n where n.state = 'active'
             group by n.node_id, n.claimed_at
            returning id, jobs
        )
        update job j set claim_id = c.id from claimed c cross join lateral unnest(c.jobs) as m (id) where j.id = m.id;
    end if;
    return null;
end
$$;
create trigger job_comes after insert on job referencing new table as new_rows
    for each statement execute function follow_new_jobs();

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
select j.id, j.lane_id, j.scenario_id, j.epoch, j.epoch_claims, j.claims, j.claimed_at, j.cancel_requested, c.node_id
  from claim c
 cross join lateral (
    select j.* from job j where j.id = any (c.jobs) and j.state = 'active' and j.claim_id = c.id offset 0
 ) as j;
comment on view active_job is 'The jobs that nodes run now.';
