-- A database that was restored from a backup or copied holds jobs that have run since, somewhere else. It notices by
-- itself that it lives elsewhere, and then nothing starts before a person has looked.

-- Where this database lives: the cluster it was in, and which database of it, when a node last started.
create table home (
    id                boolean primary key default true check (id),
    system_identifier bigint not null,
    database_oid      oid not null,
    since             timestamptz not null default clock_timestamp()
);

-- Pauses the queue and records, in the audit, what of each run that is under way may run a second time: the jobs that
-- were active (they are given back when their nodes do not come back), and how many waited.
create function begin_after_restore(p_note text) returns void language plpgsql as $$
begin
    update queue_state
       set is_paused = true, paused_at = clock_timestamp(),
           paused_by = coalesce(nullif(current_setting('runlane.actor', true), ''), 'system'), pause_reason = p_note
     where not is_paused;
    perform record_act('queue.restored', 'queue', 'queue', null, null, null, p_note);
    perform record_act('run.restored', 'run', r.id::text, r.id, null,
                       jsonb_build_object('active', m.active, 'waiting', m.waiting, 'lastChangeAt', m.last_change), p_note)
       from run r
      cross join lateral (
        select coalesce(jsonb_agg(a.id order by a.id) filter (where a.id is not null), '[]') as active,
               (select sum(l.pending) from lane l where l.run_id = r.id and l.is_live) as waiting,
               (select max(l.updated_at) from lane l where l.run_id = r.id) as last_change
          from lane l
          left join active_job a on a.lane_id = l.id
         where l.run_id = r.id and l.is_live and l.active > 0
      ) as m
      where exists (select from lane l where l.run_id = r.id and l.is_live);
end
$$;

-- Notices whether this database has moved since a node last started on it. Claims wait meanwhile.
create function settle_home() returns boolean language plpgsql as $$
declare
    v_system bigint;
    v_oid    oid;
    v_home   home;
begin
    perform pg_advisory_xact_lock(gate());
    select c.system_identifier into v_system from pg_control_system() as c;
    select d.oid into v_oid from pg_database d where d.datname = current_database();
    insert into home (system_identifier, database_oid) values (v_system, v_oid) on conflict do nothing;
    select * into v_home from home for update;
    if v_home.system_identifier = v_system and v_home.database_oid = v_oid then
        return false;
    end if;
    perform begin_after_restore('the database was restored or copied: look at `runlane restored`, then resume the queue');
    update home set system_identifier = v_system, database_oid = v_oid, since = clock_timestamp();
    return true;
end
$$;
