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
