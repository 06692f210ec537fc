-- Money: what attempts cost, what a run may cost, and what then happens.

-- US dollars for a usage of tokens at these prices, both as the worker protocol has them; exact. Null where the prices are
-- unknown, or that of a part that was used.
create function usage_cost(p_usage jsonb, p_pricing jsonb) returns numeric language sql immutable as $$
    select case when jsonb_typeof(p_usage) = 'object' and jsonb_typeof(p_pricing) = 'object'
                     and bool_and(coalesce(p.tokens, 0) = 0 or p.price is not null)
                -- A product is exact, a quotient is not.
                then trim_scale(coalesce(sum(p.tokens * p.price), 0) * 0.000001) end
      from unnest(array['input', 'output', 'reasoning', 'cacheRead', 'cacheWrite']) as part
     cross join lateral (
        select case when jsonb_typeof(p_usage -> part) = 'number' then greatest((p_usage ->> part)::numeric, 0) end,
               coalesce(p_pricing ->> (part || 'PerMillion'),
                        case part when 'reasoning' then p_pricing ->> 'outputPerMillion' end)::numeric
     ) as p (tokens, price)
$$;

-- What a run may cost, and how often its probes may fail. What it then does by itself is PAUSE or STOP.
alter table run
    add column on_budget        text not null default 'PAUSE' check (on_budget in ('PAUSE', 'STOP')),
    -- Failed of finished; more trips the guard once min_finished have finished since the run was started or resumed.
    add column max_failure_rate double precision check (max_failure_rate >= 0 and max_failure_rate < 1),
    add column min_finished     int check (min_finished >= 1),
    add column on_failure_rate  text not null default 'PAUSE' check (on_failure_rate in ('PAUSE', 'STOP')),
    -- How many had completed and failed when it was resumed last.
    add column guard_completed  int not null default 0,
    add column guard_failed     int not null default 0,
    -- Which guard paused or stopped it, and why in words; null while none has.
    add column halted_by        text check (halted_by in ('budget', 'failureRate')),
    add column halt_reason      text,
    add check ((halted_by is null) = (halt_reason is null)),
    add check ((max_failure_rate is null) = (min_finished is null));
alter table lane
    -- US dollars that one job is expected to cost at most; null where no price is known.
    add column estimate_usd numeric check (estimate_usd >= 0),
    -- Copied from the run, so that a claim reads this table only.
    add column budget_usd   numeric,
    -- Its run has a budget or a failure guard: whoever ends jobs of it locks all of its lanes, so that of two ends that
    -- come together the second counts the first.
    add column is_guarded   boolean not null default false,
    add check (is_guarded or budget_usd is null);

-- US dollars that are set aside for one job of a lane while it runs: the estimate of the start, or what its finished jobs
-- have cost each, if that is more.
create function job_reserve(p_lane lane) returns numeric language sql immutable as $$
    select greatest(coalesce((p_lane).estimate_usd, 0),
                    coalesce((p_lane).cost_usd, 0) / nullif((p_lane).completed + (p_lane).failed, 0))
$$;

-- What is left of the budget of a run when what runs is taken for spent.
create function money_left(p_run uuid) returns numeric language plpgsql stable as $$
begin
    -- Not in SQL, which would be planned in every transaction.
    return (select max(l.budget_usd) - coalesce(sum(l.cost_usd), 0) - sum(l.active * job_reserve(l))
              from lane l where l.run_id = p_run and l.kind = 'probe:scenario');
end
$$;

-- Whether one more job of a lane fits into the budget of its run. Beside claims and ends it is only an indication.
create function fits_budget(p_lane bigint) returns boolean language plpgsql stable as $$
begin
    return (select job_reserve(l) <= money_left(l.run_id) from lane l where l.id = p_lane);
end
$$;

-- Whether nothing of a run that still waits fits into its budget, however cheap what runs turns out to be.
create function budget_is_used_up(p_run uuid) returns boolean language sql stable as $$
    select coalesce(sum(l.cost_usd) + min(job_reserve(l)) filter (where l.total > l.completed + l.cancelled)
                    > max(l.budget_usd), false)
      from lane l where l.run_id = p_run and l.kind = 'probe:scenario'
$$;

-- A run that goes on forgets why it was halted, and counts failures anew.
create function rearm_guard() returns trigger language plpgsql as $$
begin
    new.halted_by := null;
    new.halt_reason := null;
    select coalesce(sum(l.completed), 0), coalesce(sum(l.failed), 0) into new.guard_completed, new.guard_failed
      from lane l where l.run_id = new.id and l.kind = 'probe:scenario';
    return new;
end
$$;
create trigger run_guard_is_rearmed before update of status on run
    for each row when (new.status = 'RUNNING' and old.status in ('PAUSED', 'COMPLETED', 'FAILED'))
    execute function rearm_guard();

-- Has a run's guard act. The caller holds all lanes of the run, and the run. It needs no gate: a claim looks at the lanes
-- again under their locks.
create function halt_run(p_run uuid, p_by text, p_reason text, p_action text) returns void language plpgsql as $$
declare
    v_now timestamptz := clock_timestamp();
begin
    if p_action = 'STOP' then
        perform close_failed_run(p_run);
    else
        update lane l set is_paused = true, version = l.version + 1, updated_at = v_now where l.run_id = p_run;
        update run r
           set status = 'PAUSED', paused_at = v_now, updated_at = v_now, version = r.version + 1
         where r.id = p_run;
    end if;
    update run r set halted_by = p_by, halt_reason = p_reason where r.id = p_run;
    perform record_act('run.halted', 'run', p_run::text, p_run, null,
                       jsonb_build_object('by', p_by, 'action', p_action), p_reason);
end
$$;

-- An amount for people.
create function usd(p_amount numeric) returns text language sql immutable as $$
    select '$' || trim_scale(round(p_amount, 6))
$$;

-- Looks at the guarded runs of these lanes, and halts those that failed too often or whose money is used up while jobs
-- wait. The caller holds all of their lanes.
create function guard_runs(p_lanes bigint[]) returns void language plpgsql as $$
declare
    v_run      run;
    v_sum      record;
    v_failed   bigint;
    v_finished bigint;
begin
    for v_run in
        select r.* from run r
         -- An array, not a join: where nested loops are off (end_attempts()), that would read all runs.
         where r.id = any (array(select l.run_id from lane l where l.id = any (p_lanes) and l.is_guarded)) and r.status = 'RUNNING'
         order by r.id
           for update
    loop
        select sum(l.pending) as pending, sum(l.completed) as completed, sum(l.failed) as failed,
               coalesce(sum(l.cost_usd), 0) as spent, sum(l.active * job_reserve(l)) as reserved,
               min(job_reserve(l)) filter (where l.pending > 0) as next
          into v_sum
          from lane l where l.run_id = v_run.id and l.kind = 'probe:scenario';
        continue when v_sum.pending = 0;
        if v_sum.failed < v_run.guard_failed then
            -- Failed jobs that wait again are no failures any more.
            update run r set guard_failed = v_sum.failed where r.id = v_run.id;
            v_run.guard_failed := v_sum.failed;
        end if;
        v_failed := v_sum.failed - v_run.guard_failed;
        v_finished := v_failed + greatest(0, v_sum.completed - v_run.guard_completed);
        if v_finished >= v_run.min_finished and v_failed > v_run.max_failure_rate * v_finished then
            perform halt_run(v_run.id, 'failureRate', format(
                '%s of the last %s probes failed, more than the %s %% that maxFailureRate allows',
                v_failed, v_finished, trim_scale((v_run.max_failure_rate * 100)::numeric)), v_run.on_failure_rate);
        elsif v_sum.spent + v_sum.next > v_run.budget_usd then
            perform halt_run(v_run.id, 'budget', format(
                'the budget of %s is used up: %s spent, %s set aside for what runs, and another probe may cost %s',
                usd(v_run.budget_usd), usd(v_sum.spent), usd(v_sum.reserved), usd(v_sum.next)), v_run.on_budget);
        end if;
    end loop;
end
$$;

-- Looks at the guarded runs of which something waits and nothing runs: a retry or a smaller budget brings no end that would.
create function guard_idle_runs() returns void language plpgsql as $$
declare
    v_lanes bigint[];
begin
    v_lanes := array(select l.id from lane l
                      where l.run_id in (select g.run_id from lane g where g.is_live and g.is_guarded and not g.is_paused
                                          group by g.run_id having sum(g.active) = 0));
    perform from lane l where l.id = any (v_lanes) order by l.id for update;
    perform guard_runs(v_lanes);
end
$$;
