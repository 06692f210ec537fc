-- What runs are expected to take, from what others took.

-- What is known of a model from its latest probes. Maintenance brings it up to date; what has been archived since stays
-- counted until newer probes replace it.
create table model_statistic (
    model         text primary key,
    jobs          int not null check (jobs >= 1),
    -- Milliseconds that a probe held a slot, its retries included: mean, and 21 quantiles from the least to the greatest.
    mean_ms       double precision not null,
    quantiles_ms  double precision[] not null check (cardinality(quantiles_ms) = 21),
    -- Tokens that a probe wrote on average; null where no usage is known.
    output_tokens double precision,
    updated_at    timestamptz not null
);

alter table run
    -- What was foretold when it was started, before any correction by what was off in the past: milliseconds from its
    -- first claim to its end, and US dollars; null where nothing was known. Finished runs tell how far such are off.
    add column expected_ms  double precision,
    add column expected_usd numeric;

-- Draws the statistics anew from the latest p_lanes lanes of each model among the latest p_runs runs, up to p_jobs probes
-- of each.
create function refresh_model_statistics(p_runs int, p_lanes int, p_jobs int) returns void language sql as $$
    with recent as materialized (
        select r.id from run r where r.deleted_at is null order by r.seq desc limit p_runs
    ), lanes as materialized (
        select p.id, p.model
          from (select l.id, l.model, row_number() over (partition by l.model order by l.id desc) as place
                  from recent r join lane l on l.run_id = r.id
                 where l.kind = 'probe:scenario' and l.completed > 0 and not l.is_archived) as p
         where p.place <= p_lanes
    ), sample as (
        select l.model, extract(epoch from j.finished_at - j.claimed_at) * 1000 * (j.claims - j.epoch_claims) as ms,
               j.output
          from lanes l
         cross join lateral (
            select j.finished_at, j.claimed_at, j.claims, j.epoch_claims,
                   (t.usage ->> 'output')::float8 + coalesce((t.usage ->> 'reasoning')::float8, 0) as output
              from last_ended(l.id, p_jobs) as e
              join job j on j.id = e.job_id and j.claimed_at is not null
              left join transcript t on t.lane_id = l.id and t.job_id = j.id
         ) as j
    )
    insert into model_statistic as m (model, jobs, mean_ms, quantiles_ms, output_tokens, updated_at)
    select s.model, count(*), avg(s.ms),
           percentile_cont(array(select i / 20.0::float8 from generate_series(0, 20) as i order by i))
               within group (order by s.ms::float8),
           avg(s.output), clock_timestamp()
      from sample s
     group by s.model
     order by s.model
    on conflict (model) do update
       set jobs = excluded.jobs, mean_ms = excluded.mean_ms, quantiles_ms = excluded.quantiles_ms,
           output_tokens = coalesce(excluded.output_tokens, m.output_tokens), updated_at = excluded.updated_at
$$;

-- Slots for probes of all nodes that are there, and runs that share them with one of this priority.
create function probe_capacity(p_priority smallint)
returns table (slots bigint, other_runs bigint) language sql stable as $$
    select (select coalesce(sum((n.slots ->> 'probe:scenario')::int), 0) from node n
             where n.executes and not n.is_draining and n.lease_until > clock_timestamp()),
           (select count(distinct l.run_id) from lane l
             where l.is_live and l.id >= (select m.live_from from live_mark m)
               and l.kind = 'probe:scenario' and l.is_open and not l.is_paused and l.held_at is null
               and l.pending > 0 and l.priority >= p_priority)
$$;
