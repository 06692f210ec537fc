-- Limits: what claims take from them, what ends give back, and how they hold. Locks as in 0003_claims.sql.
--
-- A limit on a provider or a model counts jobs in flight, calls and tokens. Jobs in flight are those of its lanes. Calls
-- and tokens are taken at the claim, as estimated: from a bucket, so that a minute's allowance is spread over the minute,
-- and from the last 60 seconds, so that no 60 seconds see more than a minute's allowance.

-- The name of a model's provider.
create function provider_of(p_model text) returns text language sql immutable as $$
    select split_part(p_model, '/', 1)
$$;

-- How much of a bucket's size there is at most at once: a twentieth of a minute's allowance.
create function bucket_size(p_per_minute int) returns double precision language sql immutable as $$
    select greatest(1, p_per_minute / 20.0)::double precision
$$;

-- How much a bucket holds at a time.
create function bucket_level(p_left double precision, p_filled_at timestamptz, p_per_minute int, p_now timestamptz)
returns double precision language sql immutable as $$
    select least(bucket_size(p_per_minute),
                 p_left + greatest(0, extract(epoch from p_now - p_filled_at)) * p_per_minute / 60.0)::double precision
$$;

-- What one job takes of a room.
create function weight(p_room room, p_requests int, p_tokens int) returns double precision language sql immutable as $$
    select case split_part((p_room).part, ' ', 1) when 'jobs' then 1 when 'requests' then p_requests
                                                  when 'tokens' then p_tokens end::double precision
$$;

-- What must remain of a room before one job may take its weight.
create function needed(p_room room, p_requests int, p_tokens int) returns double precision language sql immutable as $$
    select least(weight(p_room, p_requests, p_tokens), (p_room).cap)
$$;

-- Whether a limit holds anything back: rows without a ceiling may have nothing to say.
create function is_in_force(p_limit rate_limit) returns boolean language sql immutable as $$
    select num_nonnulls(p_limit.in_flight_max, p_limit.requests_per_minute, p_limit.tokens_per_minute, p_limit.concurrency,
                        p_limit.held_at, p_limit.held_until) > 0
$$;

-- Locks the limits that bear on probes that wait, and are in force; returns them.
create function lock_limits() returns bigint[] language plpgsql as $$
declare
    v_limits bigint[];
begin
    v_limits := array(
        select r.id from rate_limit r
         where is_in_force(r)
           and exists (select from lane l
                        where l.is_live and l.id >= (select m.live_from from live_mark m)
                          and l.kind = 'probe:scenario' and l.is_open and not l.is_paused
                          and l.pending > 0 and r.name in (l.model, provider_of(l.model))));
    perform from rate_limit r where r.id = any (v_limits) order by r.id for update;
    return v_limits;
end
$$;

-- What remains of these limits, one row for each thing that they count: jobs in flight, and calls and tokens, each of the
-- bucket and of the last 60 seconds.
create function rooms(p_limits bigint[], p_now timestamptz) returns room[] language plpgsql stable as $$
begin
    -- Not in SQL, which would be planned in every transaction.
    return (
        with demand as (
            select r.id, coalesce(sum(l.active), 0) as active,
                   coalesce(max(l.requests) filter (where l.pending > 0), 1) as requests,
                   coalesce(max(l.tokens) filter (where l.pending > 0), 0) as tokens
              from rate_limit r
              left join lane l on l.is_live and l.id >= (select m.live_from from live_mark m)
                              and l.kind = 'probe:scenario' and r.name in (l.model, provider_of(l.model))
             where r.id = any (p_limits)
             group by r.id
        ), spent as (
            -- The second in which the last 60 began counts as a whole.
            select g.limit_id, sum(g.requests) as requests, sum(g.tokens) as tokens,
                   min(g.second) filter (where g.requests > 0) + interval '61 seconds' as ends_at
              from rate_grant g
             where g.limit_id = any (p_limits) and g.second > p_now - interval '61 seconds'
             group by g.limit_id
        ), held as (
            select r.*, d.active, d.requests, d.tokens, s.requests as requests_spent, s.tokens as tokens_spent, s.ends_at,
                   coalesce(r.held_at is not null or r.held_until > p_now, false) as is_held
              from rate_limit r
              join demand d on d.id = r.id
              left join spent s on s.limit_id = r.id
        ), part as (
            select h.id, h.name, 'jobs' as part,
                   case when h.is_held then 0 else floor(least(h.in_flight_max, h.concurrency)) - h.active end as remains,
                   1e9 as cap, case when h.is_held and h.held_at is null then h.held_until end as opens_at
              from held h
             where h.is_held or h.in_flight_max is not null or h.concurrency is not null
            union all
            select h.id, h.name, 'requests', b.level, b.size,
                   case when b.level < least(h.requests, b.size)
                        then p_now + (least(h.requests, b.size) - b.level) * 60.0 / h.requests_per_minute * interval '1 second' end
              from held h
             cross join lateral (select bucket_level(h.requests_left, h.filled_at, h.requests_per_minute, p_now) as level,
                                        bucket_size(h.requests_per_minute) as size) as b
             where h.requests_per_minute is not null and not h.is_held
            union all
            select h.id, h.name, 'requests of 60 s', h.requests_per_minute - coalesce(h.requests_spent, 0),
                   h.requests_per_minute,
                   case when h.requests_per_minute - h.requests_spent < least(h.requests, h.requests_per_minute)
                        then h.ends_at end
              from held h where h.requests_per_minute is not null and not h.is_held
            union all
            select h.id, h.name, 'tokens', b.level, b.size,
                   case when b.level < least(h.tokens, b.size)
                        then p_now + (least(h.tokens, b.size) - b.level) * 60.0 / h.tokens_per_minute * interval '1 second' end
              from held h
             cross join lateral (select bucket_level(h.tokens_left, h.filled_at, h.tokens_per_minute, p_now) as level,
                                        bucket_size(h.tokens_per_minute) as size) as b
             where h.tokens_per_minute is not null and not h.is_held
            union all
            select h.id, h.name, 'tokens of 60 s', h.tokens_per_minute - coalesce(h.tokens_spent, 0), h.tokens_per_minute,
                   case when h.tokens_per_minute - h.tokens_spent < least(h.tokens, h.tokens_per_minute) then h.ends_at end
              from held h where h.tokens_per_minute is not null and not h.is_held
        )
        select coalesce(array_agg((p.id, p.name, p.part, p.remains, p.cap, p.opens_at)::room order by p.id, p.part), '{}')
          from part p
    );
end
$$;

-- Milliseconds until something remains of a room that leaves nothing now; null when that is not known.
create function opens_ms(p_rooms room[], p_now timestamptz) returns bigint language plpgsql as $$
declare
    v_opens_at timestamptz := (select min(r.opens_at) from unnest(p_rooms) as r);
begin
    return case when v_opens_at is not null
                then greatest(1, ceil(extract(epoch from v_opens_at - p_now) * 1000))::bigint end;
end
$$;

-- Grants units, one slot of a lane each, in their order, as far as the slots of each kind and the rooms go.
create function granted(p_units bigint[], p_unit_kinds job_kind[], p_kinds job_kind[], p_slots int[], p_rooms room[])
returns table (lane_id bigint, n int) language plpgsql as $$
declare
    v_slots   int[] := p_slots;
    v_remains double precision[] := array(select r.remains from unnest(p_rooms) with ordinality as r order by r.ordinality);
    v_lanes   bigint[] := '{}';
    v_counts  int[] := '{}';
    v_units   record;
    v_kind    int;
    v_fit     int;
begin
    -- Units of one lane that follow each other are granted together.
    for v_units in
        select u.lane_id, u.kind, u.n, w.at, w.weight, w.needed
          from (
            select f.lane_id, f.kind, min(f.place) as place, count(*)::int as n
              from (
                select i.*, i.place - row_number() over (partition by i.lane_id, i.kind order by i.place) as series
                  from unnest(p_units, p_unit_kinds) with ordinality as i (lane_id, kind, place)
              ) as f
             group by f.lane_id, f.kind, f.series
          ) as u
          left join (
            select l.id, array_agg(r.ordinality::int) as at,
                   array_agg(weight(r.it, l.requests, l.tokens)) as weight,
                   array_agg(needed(r.it, l.requests, l.tokens)) as needed
              from lane l
              join (select row(r.limit_id, r.name, r.part, r.remains, r.cap, r.opens_at)::room as it, r.name, r.ordinality
                      from unnest(p_rooms) with ordinality as r) as r
                on r.name in (l.model, provider_of(l.model))
             where l.id = any (p_units)
             group by l.id) as w on w.id = u.lane_id
         order by u.place
    loop
        v_kind := array_position(p_kinds, v_units.kind);
        v_fit := least(v_units.n, v_slots[v_kind]);
        for i in 1 .. coalesce(cardinality(v_units.at), 0) loop
            -- Each must find what it needs when those before it have taken their weight.
            v_fit := case when v_remains[v_units.at[i]] < v_units.needed[i] then 0
                          when v_units.weight[i] = 0 then v_fit
                          else least(v_fit, 1 + floor((v_remains[v_units.at[i]] - v_units.needed[i]) / v_units.weight[i])) end;
        end loop;
        continue when v_fit = 0;
        for i in 1 .. coalesce(cardinality(v_units.at), 0) loop
            v_remains[v_units.at[i]] := v_remains[v_units.at[i]] - v_fit * v_units.weight[i];
        end loop;
        v_slots[v_kind] := v_slots[v_kind] - v_fit;
        v_lanes := v_lanes || v_units.lane_id;
        v_counts := v_counts || v_fit;
    end loop;
    return query select g.lane_id, sum(g.n)::int from unnest(v_lanes, v_counts) as g (lane_id, n) group by g.lane_id;
end
$$;

-- Takes what these claims are expected to use from the limits, which the caller has locked.
create function charge_limits(p_limits bigint[], p_lanes bigint[], p_counts bigint[], p_now timestamptz)
returns void language plpgsql as $$
begin
    if coalesce(p_limits, '{}') = '{}' or p_lanes is null then
        return;
    end if;
    with taken as materialized (
        select r.id, sum(c.n * l.requests) as requests, sum(c.n * l.tokens) as tokens
          from unnest(p_lanes, p_counts) as c (id, n)
          join lane l on l.id = c.id and l.id = any (p_lanes)
          join rate_limit r on r.id = any (p_limits) and r.name in (l.model, provider_of(l.model))
         where num_nonnulls(r.requests_per_minute, r.tokens_per_minute) > 0
         group by r.id
    ), emptied as (
        update rate_limit r
           set requests_left = coalesce(bucket_level(r.requests_left, r.filled_at, r.requests_per_minute, p_now), 1)
                               - t.requests,
               tokens_left = coalesce(bucket_level(r.tokens_left, r.filled_at, r.tokens_per_minute, p_now), 1) - t.tokens,
               filled_at = p_now
          from taken t
         where r.id = t.id
    ), forgotten as (
        delete from rate_grant g using taken t
         where g.limit_id = t.id and g.second < p_now - interval '2 minutes'
    )
    insert into rate_grant as g (limit_id, second, requests, tokens)
    select t.id, date_trunc('second', p_now), t.requests, t.tokens from taken t
    on conflict (limit_id, second) do update
       set requests = g.requests + excluded.requests, tokens = g.tokens + excluded.tokens;
end
$$;

-- Locks the limits that the ends of these jobs may change, making those that are to hold; returns whether there are any.
-- p_holds: whether what went wrong bears on everybody who calls the provider.
create function lock_limits_of(p_job bigint[], p_error_code text[], p_holds boolean[]) returns boolean
language plpgsql as $$
declare
    v_lanes bigint[];
begin
    if (true = any (p_holds)) is not true and not exists (select from rate_limit) then
        return false;
    end if;
    -- By keys: whoever ends attempts has nested loops off, and would read all jobs and lanes to join them.
    v_lanes := array(select distinct j.lane_id from job j where j.id = any (p_job));
    if true = any (p_holds) then
        insert into rate_limit (name)
        select distinct case i.error_code when 'rate_limit' then l.model else provider_of(l.model) end as name
          from unnest(p_job, p_error_code, p_holds) as i (id, error_code, holds)
          join job j on j.id = i.id and j.id = any (p_job)
          join lane l on l.id = j.lane_id and l.id = any (v_lanes)
         where i.holds and l.model is not null
         order by name
        on conflict on constraint rate_limit_name do nothing;
    end if;
    perform from rate_limit r
      where r.name in (select unnest(array[l.model, provider_of(l.model)]) from lane l where l.id = any (v_lanes))
      order by r.id
        for update;
    return found;
end
$$;

-- Brings the limits up to date with attempts that have just ended: what they used is known now, what completed shows that
-- the provider bears more, and a refusal that it bears less. The caller has locked the limits. p_ended: those of the jobs whose
-- ends this transaction has recorded, all of p_lanes; the other arrays are parallel to p_job. p_holds: see lock_limits_of.
create function settle_limits(
    p_ended bigint[], p_lanes bigint[], p_job bigint[], p_outcome attempt_outcome[], p_error_code text[],
    p_error_message text[], p_delay_ms bigint[], p_usage jsonb[], p_holds boolean[], p_now timestamptz
) returns void language plpgsql as $$
declare
    v_limit record;
begin
    for v_limit in
        with limited as materialized (
            select l.id as lane_id, l.model, l.tokens, r.id, r.name, r.tokens_per_minute
              from lane l join rate_limit r on r.name in (l.model, provider_of(l.model))
             where l.id = any (p_lanes)
        ), ended as materialized (
            select j.lane_id, j.id, j.claimed_at, i.at
              from unnest(p_job) with ordinality as i (id, at)
              join unnest(p_ended) as e (id) on e.id = i.id
              join job j on j.id = i.id and j.id = any (p_ended)
        )
        select m.id, m.name, m.tokens_per_minute,
               count(*) filter (where p_outcome[e.at] = 'completed') as completed,
               count(*) filter (where s.is_slow) as refused,
               max(e.claimed_at) filter (where s.is_slow) as refused_start,
               max(p_now + coalesce(p_delay_ms[e.at], 0) * interval '1 millisecond') filter (where s.is_slow) as until,
               (array_agg(p_error_code[e.at] order by e.id) filter (where s.is_stop))[1] as stop_code,
               (array_agg(p_error_message[e.at] order by e.id) filter (where s.is_stop))[1] as stop_message,
               -- What was not used is given back where it was taken; what was used beyond is taken now.
               array_agg(date_trunc('second', e.claimed_at)) filter (where u.used < m.tokens) as spared_at,
               array_agg(m.tokens - u.used) filter (where u.used < m.tokens) as spared,
               coalesce(sum(m.tokens - u.used), 0) as balance,
               coalesce(sum(u.used - m.tokens) filter (where u.used > m.tokens), 0) as beyond
          from ended e
          join limited m on m.lane_id = e.lane_id
         cross join lateral (
            select coalesce((p_usage[e.at] ->> 'input')::bigint + (p_usage[e.at] ->> 'output')::bigint, m.tokens) as used) as u
         cross join lateral (
            select p_holds[e.at] and p_error_code[e.at] = 'rate_limit' and m.name = m.model as is_slow,
                   p_holds[e.at] and p_error_code[e.at] <> 'rate_limit' and m.name <> m.model as is_stop) as s
         group by m.id, m.name, m.tokens_per_minute
         order by m.id
    loop
        if v_limit.tokens_per_minute is not null and (v_limit.balance <> 0 or v_limit.beyond <> 0) then
            update rate_grant g set tokens = g.tokens - s.tokens
              from (select at, sum(n) as tokens from unnest(v_limit.spared_at, v_limit.spared) as s (at, n) group by at) as s
             where g.limit_id = v_limit.id and g.second = s.at;
            insert into rate_grant as g (limit_id, second, requests, tokens)
            select v_limit.id, date_trunc('second', p_now), 0, v_limit.beyond where v_limit.beyond > 0
            on conflict (limit_id, second) do update set tokens = g.tokens + excluded.tokens;
            update rate_limit r set tokens_left = r.tokens_left + v_limit.balance where r.id = v_limit.id;
        end if;
        if v_limit.refused > 0 then
            -- One halving for all that were in flight together.
            update rate_limit r
               set held_until = greatest(r.held_until, v_limit.until),
                   concurrency = case when v_limit.refused_start <= r.slowed_at then r.concurrency else
                       greatest(1, floor(least(r.in_flight_max, r.concurrency, v_limit.refused + (
                           select sum(l.active) from lane l
                            where l.is_live and l.id >= (select m.live_from from live_mark m)
                              and l.kind = 'probe:scenario' and r.name in (l.model, provider_of(l.model))
                       )) / 2)) end,
                   slowed_at = case when v_limit.refused_start <= r.slowed_at then r.slowed_at else p_now end,
                   requests_left = least(r.requests_left, 0), tokens_left = least(r.tokens_left, 0), filled_at = p_now
             where r.id = v_limit.id;
        elsif v_limit.completed > 0 then
            -- One more for each round of completions. Without a ceiling the last refusal is forgotten in time.
            update rate_limit r
               set concurrency = case when g.grown >= r.in_flight_max then null
                                      when r.in_flight_max is null and r.slowed_at < p_now - interval '10 minutes' then null
                                      else g.grown end
              from (select c.concurrency + v_limit.completed / c.concurrency as grown
                      from rate_limit c where c.id = v_limit.id) as g
             where r.id = v_limit.id and r.concurrency is not null;
        end if;
        if v_limit.stop_code is not null then
            update rate_limit r
               set held_at = p_now, hold_code = v_limit.stop_code, hold_reason = v_limit.stop_message
             where r.id = v_limit.id and r.held_at is null;
            if found then
                perform record_act('limit.held', 'limit', v_limit.name, null, null,
                                   jsonb_build_object('code', v_limit.stop_code), v_limit.stop_message);
            end if;
        end if;
    end loop;
end
$$;
