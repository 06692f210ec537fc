-- The end of the transaction that starts a run: one call instead of a round trip for each step.

-- Records that a run was started, and refuses it (constraint user_waiting_jobs_max) when more than so many jobs of its
-- creator wait with it. From here to the commit one run of a user at a time, so that each sees those before it.
create function admit_run(p_run uuid, p_waiting_max bigint) returns void language plpgsql as $$
declare
    v_user text;
begin
    perform record_act('startRun', 'run', r.id::text, r.id, null,
                       jsonb_build_object('status', r.status, 'definitionId', r.definition_id, 'models', r.models,
                                          'priority', r.priority, 'maxConcurrency', r.max_concurrency,
                                          'budgetUsd', r.budget_usd, 'maxFailureRate', r.max_failure_rate,
                                          'samplePercentage', r.sample_percentage, 'sampleSeed', r.sample_seed,
                                          'jobs', (select sum(l.total) from lane l where l.run_id = r.id)))
       from run r where r.id = p_run;
    select r.created_by into strict v_user from run r where r.id = p_run;
    -- A class of its own among the advisory locks.
    perform pg_advisory_xact_lock(1919840623, hashtext(v_user));
    -- A statement of its own: it sees what was committed before the lock was granted.
    if (select sum(l.pending) from lane l join run r on r.id = l.run_id
         where l.is_live and l.id >= (select m.live_from from live_mark m)
           and r.created_by = v_user) > p_waiting_max then
        raise exception 'more than % jobs of this user would wait', p_waiting_max
              using errcode = 'check_violation', constraint = 'user_waiting_jobs_max';
    end if;
end
$$;
