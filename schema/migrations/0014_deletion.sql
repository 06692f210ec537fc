-- What people deleted is hidden at once and removed later, in small steps.

-- From then on the run is not whole any more, and cannot be restored.
alter table run add column removal_began_at timestamptz,
    add check (removal_began_at is null or deleted_at is not null);

-- Deletes up to p_batch rows of one run that was deleted p_after ago, at last the run itself; says how many. Null when
-- another node is at it.
create function remove_deleted_run(p_after interval, p_batch int) returns int language plpgsql as $$
declare
    v_run   uuid;
    v_lanes bigint[];
    v_ids   bigint[];
    v_left  int := p_batch;
begin
    if not pg_try_advisory_xact_lock(archive_lock()) then
        return null;
    end if;
    select r.id into v_run from run r
     where r.deleted_at <= clock_timestamp() - p_after
       and not exists (select from lane l where l.run_id = r.id and l.is_live)
       and not exists (select from dead_letter d where d.run_id = r.id and d.status = 'pending')
     order by r.deleted_at limit 1;
    if v_run is null then
        return 0;
    end if;
    perform from lane l where l.run_id = v_run order by l.id for update;
    update run r set removal_began_at = coalesce(r.removal_began_at, clock_timestamp())
     where r.id = v_run and r.deleted_at is not null;
    if not found then
        -- Restored meanwhile.
        return 1;
    end if;
    v_lanes := array(select l.id from lane l where l.run_id = v_run);
    v_ids := array(select j.id from job j where j.lane_id = any (v_lanes) limit v_left);
    delete from past_attempt a where a.job_id = any (v_ids);
    delete from transcript t where t.lane_id = any (v_lanes) and t.job_id = any (v_ids);
    delete from job j where j.id = any (v_ids);
    v_left := v_left - cardinality(v_ids);
    v_ids := array(select j.id from archived_job j where j.lane_id = any (v_lanes) limit v_left);
    delete from archived_job j where j.id = any (v_ids);
    v_left := v_left - cardinality(v_ids);
    v_ids := array(select d.id from dead_letter d where d.run_id = v_run limit v_left);
    delete from dead_letter d where d.id = any (v_ids);
    v_left := v_left - cardinality(v_ids);
    if v_left > 0 then
        -- Its lanes and analyses go with it.
        delete from run r where r.id = v_run;
        perform record_act('run.removed', 'run', v_run::text, v_run);
        v_left := v_left - 1;
    end if;
    return p_batch - v_left;
end
$$;

-- Deletes up to p_batch scenarios of one definition that was deleted p_after ago and that no run refers to any more, at
-- last the definition itself; says how many rows. Null when another node is at it.
create function remove_deleted_definition(p_after interval, p_batch int) returns int language plpgsql as $$
declare
    v_definition uuid;
    v_n          int;
begin
    if not pg_try_advisory_xact_lock(archive_lock()) then
        return null;
    end if;
    -- A run that is being started holds the row, and is seen by the next statement.
    select d.id into v_definition from definition d
     where d.deleted_at <= clock_timestamp() - p_after
       and not exists (select from run r where r.definition_id = d.id)
     order by d.deleted_at limit 1 for update skip locked;
    if v_definition is null or exists (select from run r where r.definition_id = v_definition) then
        return 0;
    end if;
    delete from scenario s
     where s.id = any (array(select o.id from scenario o where o.definition_id = v_definition limit p_batch));
    get diagnostics v_n = row_count;
    if v_n < p_batch then
        delete from definition d where d.id = v_definition;
        perform record_act('definition.removed', 'definition', v_definition::text);
        v_n := v_n + 1;
    end if;
    return v_n;
end
$$;

-- A run begins from a definition that is there, also while somebody deletes it: whoever comes second sees the first.
create function refuse_deleted_definition() returns trigger language plpgsql as $$
begin
    perform from definition d where d.id = new.definition_id and d.deleted_at is null for key share;
    if not found then
        raise exception 'there is no such definition'
            using errcode = 'foreign_key_violation', constraint = 'run_definition_is_there';
    end if;
    return new;
end
$$;
create trigger run_definition_is_there before insert on run
    for each row execute function refuse_deleted_definition();
