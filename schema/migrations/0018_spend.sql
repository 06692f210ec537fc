-- What the installation, a group or a user may spend in a day or a month, and who may use which provider.

alter table run add column created_group text;
alter table audit drop constraint audit_subject_kind_check,
    add constraint audit_subject_kind_check check (subject_kind in (
        'run', 'job', 'lane', 'node', 'queue', 'definition', 'dead_letter', 'limit', 'spend_limit', 'provider'));

-- What was spent, by day (UTC). Sharded by node, so that nodes do not wait for each other. Kept for 400 days.
create table spend_day (
    day        date not null,
    owner      text not null,
    -- Empty: none.
    group_name text not null,
    node_id    uuid not null,
    usd        numeric not null,
    primary key (day, owner, group_name, node_id)
) with (fillfactor = 50);

create table spend_limit (
    scope  text not null check (scope in ('INSTALLATION', 'GROUP', 'USER')),
    -- The group's or the user's name; empty for the installation.
    key    text not null,
    period text not null check (period in ('DAY', 'MONTH')),
    usd    numeric not null check (usd >= 0),
    set_by text not null,
    set_at timestamptz not null default clock_timestamp(),
    primary key (scope, key, period),
    check ((scope = 'INSTALLATION') = (key = ''))
);

-- Roles that may start runs with a provider; all may with one that is not here.
create table provider_role (
    provider text primary key,
    roles    text[] not null,
    set_by   text not null,
    set_at   timestamptz not null default clock_timestamp()
);

-- Whether a limit concerns the runs of this user.
create function spend_covers(p_scope text, p_key text, p_owner text, p_group text) returns boolean language sql immutable as $$
    select case p_scope when 'INSTALLATION' then true when 'USER' then p_key = p_owner else p_key = coalesce(p_group, '') end
$$;

-- The day or month (UTC) that a moment lies in.
create function spend_period(p_period text, p_at timestamptz, out from_at timestamptz, out until_at timestamptz)
language sql immutable as $$
    select p.start at time zone 'UTC', (p.start + case p_period when 'DAY' then interval '1 day' else interval '1 month' end)
                                       at time zone 'UTC'
      from (select date_trunc(lower(p_period), p_at at time zone 'UTC') as start) as p
$$;

-- The runs of which anything waits or runs. Who joins them by their lanes asks for them by this array too: joined alone, all
-- runs might be read to be merged with the lanes.
create function live_runs() returns uuid[] language sql stable as $$
    select array(select distinct l.run_id from lane l where l.is_live and l.id >= (select m.live_from from live_mark m))
$$;

-- What was spent of an account in the period of a moment, and what is set aside for what runs.
create function spend_of(p_scope text, p_key text, p_period text, p_at timestamptz,
                         out spent numeric, out reserved numeric, out from_at timestamptz, out until_at timestamptz)
language sql stable as $$
    select (select coalesce(sum(d.usd), 0) from spend_day d
             where d.day >= (p.from_at at time zone 'UTC')::date and d.day < (p.until_at at time zone 'UTC')::date
               and spend_covers(p_scope, p_key, d.owner, nullif(d.group_name, ''))),
           (select coalesce(sum(l.active * job_reserve(l)), 0)
              from lane l join run r on r.id = l.run_id and r.id = any ((select live_runs())::uuid[])
             where l.is_live and l.id >= (select m.live_from from live_mark m)
               and l.kind = 'probe:scenario' and l.active > 0
               and spend_covers(p_scope, p_key, r.created_by, r.created_group)),
           p.from_at, p.until_at
      from spend_period(p_period, p_at) as p
$$;

-- Every limit, and what is left of it.
create function spend_rooms(p_at timestamptz)
returns table (scope text, key text, period text, usd numeric, spent numeric, reserved numeric, until_at timestamptz,
               remains numeric) language sql stable as $$
    select s.scope, s.key, s.period, s.usd, o.spent, o.reserved, o.until_at, s.usd - o.spent - o.reserved
      from spend_limit s cross join lateral spend_of(s.scope, s.key, s.period, p_at) as o
$$;

-- Whether a job of this lane must not start with so much left. What has no price starts while anything is left.
create function spend_holds(p_remains numeric, p_lane lane) returns boolean language sql immutable as $$
    select p_remains < job_reserve(p_lane) or p_remains <= 0 and (p_lane).pricing is null
$$;

-- Locks the limits, which is what makes claims of several nodes share them, and returns the lanes whose jobs must wait.
create function lock_spend_limits(p_now timestamptz) returns bigint[] language plpgsql as $$
begin
    perform from spend_limit s order by s.scope, s.key, s.period for update;
    return array(
        with room as materialized (select * from spend_rooms(p_now))
        select l.id from lane l join run r on r.id = l.run_id and r.id = any ((select live_runs())::uuid[])
         where l.is_live and l.id >= (select m.live_from from live_mark m)
           and l.kind = 'probe:scenario' and l.is_open and not l.is_paused and l.pending > 0
           and exists (select from room m where spend_covers(m.scope, m.key, r.created_by, r.created_group)
                                            and spend_holds(m.remains, l)));
end
$$;

-- How many of these jobs of these lanes fit into what is left, lane by lane. The caller has locked the limits.
create function within_spend_limits(p_lanes bigint[], p_counts int[], p_now timestamptz) returns int[] language plpgsql as $$
declare
    v_rooms   text[];
    v_keys    text[];
    v_remains numeric[];
    v_counts  int[] := p_counts;
    v_lane    record;
begin
    select array_agg(m.scope order by m.scope, m.key, m.period), array_agg(m.key order by m.scope, m.key, m.period),
           array_agg(m.remains order by m.scope, m.key, m.period)
      into v_rooms, v_keys, v_remains from spend_rooms(p_now) m;
    for v_lane in
        select c.place, r.created_by, r.created_group, job_reserve(l) as reserve
          from unnest(p_lanes) with ordinality as c (id, place)
          join lane l on l.id = c.id and l.id = any (p_lanes) and l.kind = 'probe:scenario'
          join run r on r.id = l.run_id and r.id = any (array(select o.run_id from lane o where o.id = any (p_lanes)))
         where job_reserve(l) > 0
         order by c.place
    loop
        for i in 1 .. coalesce(cardinality(v_rooms), 0) loop
            if spend_covers(v_rooms[i], v_keys[i], v_lane.created_by, v_lane.created_group) then
                v_counts[v_lane.place] := greatest(0, least(v_counts[v_lane.place], floor(v_remains[i] / v_lane.reserve)));
            end if;
        end loop;
        for i in 1 .. coalesce(cardinality(v_rooms), 0) loop
            if spend_covers(v_rooms[i], v_keys[i], v_lane.created_by, v_lane.created_group) then
                v_remains[i] := v_remains[i] - v_counts[v_lane.place] * v_lane.reserve;
            end if;
        end loop;
    end loop;
    return v_counts;
end
$$;
