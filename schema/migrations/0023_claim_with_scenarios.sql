-- What a node is told of the jobs that it has claimed.

-- What the jobs of these lanes share. What they share with all of their run comes with one lane of each that is not known.
create function shared_work(p_lanes bigint[], p_known_runs uuid[])
returns table (
    lane_id bigint, run_id uuid, kind job_kind, model text, pricing jsonb, batch_id uuid, request_id text,
    definition_snapshot jsonb, params jsonb, sample_seed int
) language plpgsql stable
-- Planning takes longer than running it does.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
    return query
    select l.id, l.run_id, l.kind, l.model, l.pricing, r.batch_id, r.request_id, r.definition_snapshot, r.params, r.sample_seed
      from lane l
      -- Also by an array: joined alone, all runs might be read to be merged with these lanes.
      left join run r on r.id = l.run_id and r.id <> all (p_known_runs)
                     and r.id = any (array(select o.run_id from lane o where o.id = any (p_lanes)))
                     and l.id = any (array(select min(f.id) from lane f where f.id = any (p_lanes) group by f.run_id))
     where l.id = any (p_lanes);
end
$$;

-- What jobs ask: the scenarios with these ids, in parallel.
create function scenarios_of(
    p_ids bigint[], out scenarios bigint[], out keys text[], out prompts text[], out dimensions text[]
) language plpgsql stable
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
    select array_agg(s.id), array_agg(s.key), array_agg(s.prompt), array_agg(s.dimensions::text)
      into scenarios, keys, prompts, dimensions
      from scenario s where s.id = any (p_ids);
end
$$;

-- Claims as claim_jobs() does, commits, and then reads what the first claims ask. Returns one row of arrays: a row for each job
-- would cost both sides more than the job. In parallel are the jobs that were claimed for the first time, their lanes and
-- scenarios; the others and the numbers of their claims; the scenarios. Probes of the providers in p_without are left to other
-- nodes.
--
-- Others wait for the lanes until the claim's commit. So a claim of many jobs commits before it reads what they ask, and does
-- not wait for the disk. The second commit does, and what stands in the log before it goes to the disk with it. So a claim is
-- there before its node hears of it, and one that a crash takes back was nobody's yet. For few jobs a second commit would take
-- longer than the wait that it spares.
create procedure claim_with_scenarios(
    p_node uuid, p_kinds job_kind[], p_slots int[], p_without text[],
    out look_after_ms bigint, out claim_id bigint, out shared text,
    out first bigint[], out lanes bigint[], out asked bigint[],
    out again bigint[], out numbers int[],
    out scenarios bigint[], out keys text[], out prompts text[], out dimensions text[]
) language plpgsql as $$
begin
    select max(c.look_after_ms), max(c.claim_id), max(c.shared::text),
           array_agg(c.job_id) filter (where c.scenario_id is not null),
           array_agg(c.of_lane) filter (where c.scenario_id is not null),
           array_agg(c.scenario_id) filter (where c.scenario_id is not null),
           array_agg(c.job_id) filter (where c.job_id is not null and c.scenario_id is null),
           array_agg(c.number) filter (where c.job_id is not null and c.scenario_id is null)
      into look_after_ms, claim_id, shared, first, lanes, asked, again, numbers
      from claim_jobs(p_node, p_kinds, p_slots, (
               select array(select p from unnest(n.providers) as p where p <> all (p_without))
                 from node n where n.id = p_node)) as c;
    if coalesce(cardinality(first), 0) + coalesce(cardinality(again), 0) >= 32 then
        set local synchronous_commit = off;
        commit;
        -- Without anything to log the next commit would not wait.
        perform pg_logical_emit_message(true, 'runlane', '');
    end if;
    if asked is not null then
        select s.* into scenarios, keys, prompts, dimensions from scenarios_of(asked) as s;
    end if;
end
$$;
