-- The queue's own moves as functions: each is one call in autocommit, so no client holds a lock while the network
-- waits. Lock order everywhere: leadership, gate, node, limits, lanes, jobs, dead letters, counters, runs; within each by id.

-- Claims and ends of completed probes hold the gate shared; pause, resume, cancel and priority changes hold it
-- exclusively. Whoever takes it does so in a statement of its own, so that the statements after it see everything that
-- was committed before it was granted.
create function gate() returns bigint language sql immutable as $$ select 7243398250 $$;

-- How many jobs of a lane a claim takes together: one, unless it has very many slots. Each lane costs a claim and an end as much as
-- several jobs do, so many slots are not spread over as many lanes. A run then has up to this many more than its share.
create function quantum(p_slots int) returns int language sql immutable as $$ select greatest(1, p_slots / 32) $$;

-- Claims up to p_slots[i] jobs of p_kinds[i] for a node. A probe that is claimed for the first time comes with its lane and its
-- scenario's id, which is all there is to know of it; of the others only the ids are returned. When slots stay free, a last row
-- without a job says after how many milliseconds it is worth looking again: 0 when another node was faster or lanes may have
-- more than they offered, null when nothing that waits has a known time. What the jobs of a lane share that nobody has claimed
-- from before comes with that row too, as shared_work() has it. Probes of providers that are not among p_providers are left to
-- wait; null serves all.
create function claim_jobs(p_node uuid, p_kinds job_kind[], p_slots int[], p_providers text[] default null)
returns table (
    job_id bigint, number int, look_after_ms bigint, of_lane bigint, scenario_id bigint, claim_id bigint, shared jsonb
) language plpgsql
-- Joins here are between small sets of unknown size: a nested loop over them is quadratic.
set enable_nestloop = off
-- The nested loops that remain (lateral) then look dear enough to be compiled, which would take longer than they do.
set jit = off
-- Planning takes as long as running it does, and no plan is better for knowing the ids.
set plan_cache_mode = force_generic_plan
-- A plan that was made when the tables were empty is kept until they are analysed.
set enable_seqscan = off
-- It keeps the tables beside `job` itself (see follow_job).
set runlane.follow = 'off'
as $$
declare
    v_now    timestamptz;
    v_claimed_at timestamptz;
    v_lanes  bigint[];
    v_counts int[];
    v_locked bigint[];
    -- Whether a run that may get a slot has a maxConcurrency or a budget.
    v_has_ceilings boolean := false;
    -- The chosen lanes, as they stand once they are locked, and which of them nobody has claimed from.
    v_rows   lane[];
    v_new    bigint[];
    v_got    int := 0;
    v_wanted int;
    -- The kinds with slots left, and those whose lanes may have more than they offered.
    v_unfilled job_kind[];
    v_more     job_kind[] := '{}';
    -- The limits that bear on what waits, locked, and what each leaves (see rooms()).
    v_limits   bigint[];
    v_rooms    room[];
    v_is_limited boolean := false;
    v_has_limits boolean := false;
    -- When the first of those that leave nothing will leave something.
    v_opens_ms bigint;
    -- Every unit that could be granted, in order.
    v_units      bigint[];
    v_unit_kinds job_kind[];
    -- Lanes whose jobs a spend limit holds.
    v_broke    bigint[] := '{}';
begin
    perform pg_advisory_xact_lock_shared(gate());
    v_now := clock_timestamp();
    if (select q.is_paused from queue_state q) then
        return;
    end if;
    -- Held until the commit: nobody gives a node's jobs back while one of its claims is still on its way. The renewal of
    -- the lease is not held up.
    perform from node n where n.id = p_node and n.lease_until > v_now and not n.is_draining for key share;
    if not found then
        return;
    end if;

    if 'probe:scenario' = any (p_kinds) and exists (select from rate_limit) then
        v_has_limits := true;
        v_limits := lock_limits();
        v_now := clock_timestamp();
        v_rooms := rooms(v_limits, v_now);
        v_opens_ms := opens_ms(v_rooms, v_now);
        v_is_limited := coalesce(v_rooms <> '{}', false);
    end if;
    if exists (select from spend_limit) then
        v_broke := lock_spend_limits(v_now);
    end if;

    -- Where at most one lane has anything to claim, it shares with nobody: what follows would take longer to prepare.
    v_lanes := array(select l.id from lane l
                      where l.is_live and l.id >= (select m.live_from from live_mark m)
                        and l.kind = any (p_kinds) and l.is_open and not l.is_paused and l.held_at is null and l.pending > 0
                      limit 2);
    if v_lanes = '{}' then
        look_after_ms := v_opens_ms;
        return next;
        return;
    end if;
    if cardinality(v_lanes) = 1 and not v_has_limits and v_broke = '{}' then
        select array[d.n], array(select s.kind from unnest(p_kinds, p_slots) as s (kind, slots)
                                  where s.slots > case when s.kind = d.kind then d.n else 0 end)
          into v_counts, v_unfilled
          from (
            select l.kind, least(o.slots, l.fresh + w.n)::int as n
              from lane l
              join unnest(p_kinds, p_slots) as o (kind, slots) on o.kind = l.kind
             cross join lateral (
                select count(*) as n
                  from (select from waiting_job w where w.lane_id = l.id and w.run_at <= v_now limit o.slots) as due
             ) as w
             where l.id = any (v_lanes) and l.max_concurrency is null and l.budget_usd is null
               and (p_providers is null or l.model is null or provider_of(l.model) = any (p_providers))
          ) as d
         where d.n > 0;
    end if;

    if v_counts is null then
        -- Share the free slots out: the highest priority first, then the run with the fewest active jobs, then its lane
        -- with the fewest, and that in quanta. Each unit is one slot that a lane could get; its level is what its run would then
        -- have active.
        with live as materialized (
            -- In one sort: what its run has active, and what those of its run's lanes take that may get a slot before it.
            select l.*,
                   sum(l.active) over (partition by l.run_id, l.kind) as run_active,
                   -- Until they have as many active as it has, and then a quantum each.
                   (row_number() over w - 1) * l.active + sum(l.takes - l.active) over w - (l.takes - l.active) as taken_before
              from (
                select l.id, l.kind, l.run_id, l.priority, l.max_concurrency, l.budget_usd, l.active, l.fresh,
                       -- A lane of another kind than probes has one job.
                       least(l.pending, (select max(quantum(s)) from unnest(p_slots) as s)) as takes,
                       l.pending > 0 and l.is_open and not l.is_paused and l.held_at is null
                       and case when l.budget_usd is null then true else fits_budget(l.id) end
                       and l.id <> all (v_broke)
                       and (p_providers is null or l.model is null or split_part(l.model, '/', 1) = any (p_providers))
                       -- What began to wait while the limits were being locked may be under one that is not: the next claim
                       -- sees it.
                       and (not v_has_limits
                            or not exists (select from rate_limit r
                                            where r.name in (l.model, split_part(l.model, '/', 1)) and r.id <> all (v_limits)
                                              and is_in_force(r)))
                       and (not v_is_limited
                            or not exists (select from unnest(v_rooms) as r
                                            where r.name in (l.model, split_part(l.model, '/', 1))
                                              and r.remains < needed(r, l.requests, l.tokens))) as may_start
                  from lane l
                 where l.kind = any (p_kinds) and l.is_live and l.id >= (select m.live_from from live_mark m)
              ) as l
            window w as (partition by l.run_id, l.kind order by l.may_start desc, l.active, l.id
                         rows between unbounded preceding and current row)
        ), offering as materialized (
            -- Only so many lanes can get a slot, so only the first that have a due job are looked at: the loop takes the
            -- lanes in the order of the inner query, and stops at the limit. The others cost nothing. What is sorted is bounded:
            -- a lane with fresh jobs has a due one, so beyond so many of these only the other lanes are passed by.
            select o.*,
                   count(*) over (partition by o.kind) as lanes,
                   -- How many jobs the lanes before it would give, a quantum of each at most.
                   coalesce(sum(least(o.due, o.max_concurrency - o.run_active)) over (
                       partition by o.kind order by o.priority desc, o.first_level, o.id
                       rows between unbounded preceding and 1 preceding), 0) as jobs_before
              from (select u.*, quantum(u.slots) as quantum from unnest(p_kinds, p_slots) as u (kind, slots)) as s
             cross join lateral (
                select c.*, s.slots, s.quantum, d.due
                  from (
                    -- The level of a lane's first unit, if nothing of its run waits for its time.
                    select l.*, l.run_active + l.taken_before as first_level
                      from live l
                     where l.kind = s.kind and s.slots > 0 and l.may_start
                       and (l.max_concurrency is null or l.run_active < l.max_concurrency)
                     order by l.priority desc, first_level, l.id
                     limit 2 * s.slots + 16 + (select count(*) from live l where l.may_start and l.fresh = 0)
                  ) as c
                 cross join lateral (
                    select least(c.fresh, s.quantum) + count(*) as due
                      from (select from waiting_job w where w.lane_id = c.id and w.run_at <= v_now
                             limit greatest(0, s.quantum - c.fresh)) as waiting
                 ) as d
                 where d.due > 0
                 limit 2 * s.slots + 16
             ) as o
        ), near as materialized (
            -- Of those, as many as have jobs for all slots twice: each that is looked at further costs as much as a job.
            select o.*,
                   count(*) over (partition by o.kind) as near_lanes,
                   count(*) over (partition by o.kind, o.priority, o.run_id) as run_lanes,
                   (row_number() over (partition by o.kind, o.priority, o.run_id) = 1)::int as is_first
              from offering o
             where o.jobs_before < 2 * o.slots + 16
        ), capped as materialized (
            -- Each run offers twice its share among those of its priority, spread over its lanes, or a quantum of each, which
            -- bounds the work of a claim.
            select o.*, least(o.slots, greatest(o.quantum, ceil(
                        2.0 * o.slots / sum(o.is_first) over (partition by o.kind, o.priority) / o.run_lanes)::int)) as cap
              from near o
        ), offered as materialized (
            select c.*, d.n, d.n = c.cap and c.cap < least(c.slots, c.max_concurrency - c.run_active) as may_have_more
              from capped c
             cross join lateral (
                select least(c.cap, c.fresh + count(*)) as n
                  from (select from waiting_job w where w.lane_id = c.id and w.run_at <= v_now limit c.cap) as waiting
             ) as d
        ), due as materialized (
            -- While one may have more than it offers, those of lower priorities get nothing: the next claim follows at once.
            select o.*, count(*) over (partition by o.kind) = 1 and not v_is_limited as is_alone
              from (select o.*, max(o.priority) filter (where o.may_have_more) over (partition by o.kind) as least_priority
                      from offered o) as o
             where o.priority >= coalesce(o.least_priority, o.priority)
        ), unit as (
            select d.id, d.kind, d.slots, d.quantum, d.priority, d.max_concurrency, d.run_active,
                   d.run_active + row_number() over (
                       partition by d.kind, d.run_id order by d.active + (k - 1) / d.quantum * d.quantum, d.id) as level
              from due d
             cross join lateral generate_series(1, d.n) as k
             where not d.is_alone
        ), placed as materialized (
            select u.id, u.kind, u.slots,
                   row_number() over (
                       partition by u.kind order by u.priority desc, u.quantum_level, u.id) as place
              from (select w.*, w.run_active + (w.level - w.run_active - 1) / w.quantum * w.quantum as quantum_level
                      from unit w) as u
             where u.max_concurrency is null or u.level <= u.max_concurrency
        ), chosen as materialized (
            select p.id, p.kind, count(*)::int as n from placed p where p.place <= p.slots group by p.id, p.kind
            union all
            -- The only lane of its kind shares with nobody.
            select d.id, d.kind, least(d.n, d.slots, d.max_concurrency - d.run_active)::int from due d where d.is_alone
        ), unfilled as materialized (
            select s.kind
              from unnest(p_kinds, p_slots) as s (kind, slots)
             where s.slots > coalesce((select sum(c.n) from chosen c where c.kind = s.kind), 0)
        )
        select array_agg(c.id order by c.id), array_agg(c.n order by c.id), array(select u.kind from unfilled u),
               array(select distinct d.kind from due d
                      where d.may_have_more or d.lanes = 2 * d.slots + 16 or d.near_lanes < d.lanes),
               case when v_is_limited then array(select p.id from placed p order by p.place, p.kind) end,
               case when v_is_limited then array(select p.kind from placed p order by p.place, p.kind) end,
               exists (select from offering o where o.max_concurrency is not null or o.budget_usd is not null)
          into v_lanes, v_counts, v_unfilled, v_more, v_units, v_unit_kinds, v_has_ceilings
          from chosen c;
    end if;
    if v_lanes is null then
        look_after_ms := least(next_due_ms(p_kinds, v_now), v_opens_ms);
        return next;
        return;
    end if;
    if v_is_limited then
        select array_agg(g.lane_id order by g.lane_id), array_agg(g.n order by g.lane_id)
          into v_lanes, v_counts
          from granted(v_units, v_unit_kinds, p_kinds, p_slots, v_rooms) as g;
        v_unfilled := array(
            select s.kind from unnest(p_kinds, p_slots) as s (kind, slots)
             where s.slots > (select coalesce(sum(c.n), 0) from unnest(v_lanes, v_counts) as c (id, n)
                                join lane l on l.id = c.id and l.id = any (v_lanes) and l.kind = s.kind));
        if v_lanes is null then
            look_after_ms := least(next_due_ms(p_kinds, v_now), v_opens_ms);
            return next;
            return;
        end if;
    end if;

    -- Lock the chosen lanes, and every lane of a run whose concurrency or money is limited: its ceiling is checked again below,
    -- when nobody else can change what it is compared with.
    v_locked := v_lanes;
    if v_has_ceilings then
        v_locked := array(
            select unnest(v_lanes)
            union
            select s.id from lane s
             where s.run_id = any (array(select c.run_id from lane c
                                          where c.id = any (v_lanes)
                                            and (c.max_concurrency is not null or c.budget_usd is not null)))
               and s.kind = 'probe:scenario');
    end if;
    -- Read once: beside an old snapshot each look passes all that they have been. Not by a condition, which could come before
    -- the lock.
    select array_agg(l.lane) filter (where l.id = any (v_lanes)),
           array_agg(l.id) filter (where l.is_new and l.id = any (v_lanes))
      into v_rows, v_new
      from (select l as lane, l.id, l.pending = l.total as is_new
              from lane l where l.id = any (v_locked) order by l.id for update) as l;
    if v_new is not null then
        shared := (
            select jsonb_agg(to_jsonb(w))
              from shared_work(v_new, array(
                  select r.id from run r
                   where r.id = any (array(select l.run_id from lane l where l.id = any (v_new))) and r.started_at is not null
              )) as w);
    end if;
    v_wanted := (select sum(n) from unnest(v_counts) as n);
    if exists (select from spend_limit) then
        v_counts := within_spend_limits(v_lanes, v_counts, v_now);
    end if;
    -- After whatever the locks were waited for.
    v_claimed_at := clock_timestamp();

    return query
    with plan as materialized (
        select l.id, l.run_id, l.max_concurrency, l.budget_usd, job_reserve(l) as reserve, p.n,
               coalesce(sum(p.n) over w, 0) as before, coalesce(sum(p.n * job_reserve(l)) over w, 0) as usd_before
          from unnest(v_lanes, v_counts) as p (id, n)
          -- An end that was waited for may have held a lane, or halted the run.
          join unnest(v_rows) as l on l.id = p.id and l.held_at is null and l.is_open and not l.is_paused
        window w as (partition by l.run_id order by l.id rows between unbounded preceding and 1 preceding)
    ), allowed as materialized (
        select p.id,
               greatest(0, least(
                   p.n,
                   case when p.max_concurrency is not null then p.max_concurrency - p.before
                         - (select sum(s.active) from lane s
                             where s.run_id = p.run_id and s.kind = 'probe:scenario') end,
                   -- What a job is expected to cost is set aside while it runs.
                   case when p.budget_usd is not null and p.reserve > 0
                        then floor((money_left(p.run_id) - p.usd_before) / p.reserve) end)) as n
          from plan p
    ), picked as materialized (
        -- In the order of (run_at, id): what keeps its place, then fresh ones, then what had to wait until later.
        select a.id as lane_id, w.place, w.job_id, w.scenario_id
          from allowed a
          join unnest(v_rows) as l on l.id = a.id
         cross join lateral (
            with older as materialized (
                select w.ctid as place, w.job_id, null::bigint as scenario_id from waiting_job w
                 where w.lane_id = l.id and w.run_at <= least(coalesce(l.fresh_at, '-infinity'), v_now)
                 order by w.run_at, w.job_id limit a.n
            ), fresh as materialized (
                select null::tid, f.job_id, f.scenario_id from fresh_jobs(l) as f limit a.n - (select count(*) from older)
            )
            select * from older
            union all
            select * from fresh
            union all
            (select w.ctid, w.job_id, null from waiting_job w
              where w.lane_id = l.id and w.run_at > coalesce(l.fresh_at, '-infinity') and w.run_at <= v_now
              order by w.run_at, w.job_id
              limit a.n - (select count(*) from older) - (select count(*) from fresh))
         ) as w
    ), taken as (
        delete from waiting_job w
         where w.ctid = any (array(select p.place from picked p where p.place is not null))
    ), held as (
        insert into claim (node_id, claimed_at, jobs, lanes, unended)
        select p_node, v_claimed_at, array_agg(p.job_id), v_lanes, count(*) from picked p having count(*) > 0
        returning id
    ), again as (
        update job j
           set state = 'active', claims = j.claims + 1, node_id = p_node, claimed_at = v_claimed_at,
               claim_id = (select h.id from held h)
         where j.id = any (array(select p.job_id from picked p where p.place is not null))
        returning j.id, j.claims, j.lane_id
    ), claimed as (
        select a.id, a.claims, a.lane_id, null::bigint as scenario_id from again a
        union all
        -- The first claim of a job leaves its row alone: writing it would cost as much as the rest of the claim.
        select p.job_id, 1, p.lane_id, p.scenario_id from picked p where p.place is null
    ), counted as (
        select c.lane_id, count(*)::int as n from claimed c group by c.lane_id
    ), gone_on as materialized (
        select p.lane_id, count(*)::int as n, max(p.job_id) as job_id from picked p where p.place is null group by p.lane_id
    ), moved as (
        update lane l
           set pending = l.pending - c.n, active = l.active + c.n, version = l.version + 1, updated_at = v_now,
               fresh = l.fresh - coalesce(g.n, 0), fresh_after = coalesce(g.job_id, l.fresh_after)
          from counted c left join gone_on g on g.lane_id = c.lane_id
         where l.id = c.lane_id and l.id = any (v_lanes)
        returning l.run_id
    ), charged as (
        select charge_limits(v_limits, array_agg(c.lane_id), array_agg(c.n), v_claimed_at) from counted c
    ), starting as materialized (
        -- Two claims may start the same runs by different lanes: locked in order.
        select r.id from run r
         where r.id = any (array(select m.run_id from moved m)) and r.started_at is null
         order by r.id
           for update
    ), started as (
        update run r
           set status = case r.status when 'PENDING' then 'RUNNING' else r.status end,
               started_at = v_claimed_at, updated_at = v_claimed_at, version = r.version + 1
         where r.id = any (array(select s.id from starting s)) and r.started_at is null
           and r.status in ('PENDING', 'RUNNING')
    )
    -- The charge is read, so that it happens.
    select c.id, c.claims, null::bigint, c.lane_id, c.scenario_id, (select h.id from held h), null::jsonb
      from claimed c
     cross join charged;

    get diagnostics v_got = row_count;
    if v_is_limited and v_unfilled <> '{}' then
        v_opens_ms := opens_ms(rooms(v_limits, v_now), v_now);
    end if;
    if v_got < v_wanted or v_more && v_unfilled then
        look_after_ms := 0;
        return next;
    elsif v_unfilled <> '{}' then
        look_after_ms := least(next_due_ms(v_unfilled, v_now), v_opens_ms);
        return next;
    elsif v_new is not null then
        return next;
    end if;
end
$$;
