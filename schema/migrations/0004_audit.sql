-- Who did what, and every transition that the attempts do not record: append-only.
--
-- A transaction that acts for a person says so first, in settings that end with it: runlane.actor, runlane.role and
-- runlane.request_id. Whatever changes without them was done by the system itself.

create table audit (
    id           bigint generated always as identity primary key,
    at           timestamptz not null default clock_timestamp(),
    -- The token's subject; 'system' for what nobody asked for.
    actor        text not null,
    -- The token's role; null for the system.
    role         text,
    request_id   text,
    -- What was done: the name of the mutation, or what became of the subject.
    action       text not null,
    subject_kind text not null check (subject_kind in ('run', 'job', 'lane', 'node', 'queue', 'definition', 'dead_letter')),
    subject_id   text not null,
    -- The run that it concerns, if one.
    run_id       uuid,
    -- What of the subject changed; null where there was or is nothing.
    before       jsonb,
    after        jsonb,
    note         text
);
create index audit_by_subject on audit (subject_kind, subject_id, id);
create index audit_by_run on audit (run_id, id) where run_id is not null;

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the audit is append-only' using errcode = 'restrict_violation';
end
$$;
create trigger audit_is_append_only before update or delete or truncate on audit
    for each statement execute function refuse_change();

-- Records one act in the name of whom the transaction acts for.
create function record_act(
    p_action text, p_subject_kind text, p_subject_id text, p_run uuid default null,
    p_before jsonb default null, p_after jsonb default null, p_note text default null
) returns void language sql as $$
    insert into audit (actor, role, request_id, action, subject_kind, subject_id, run_id, before, after, note)
    values (coalesce(nullif(current_setting('runlane.actor', true), ''), 'system'),
            nullif(current_setting('runlane.role', true), ''),
            nullif(current_setting('runlane.request_id', true), ''),
            p_action, p_subject_kind, p_subject_id, p_run, p_before, p_after, p_note)
$$;

-- A run's way through its states, whoever moves it.
create function audit_run() returns trigger language plpgsql as $$
begin
    perform record_act('run.' || lower(new.status::text), 'run', new.id::text, new.id,
                       jsonb_build_object('status', old.status), jsonb_build_object('status', new.status));
    return null;
end
$$;
create trigger run_is_audited after update of status on run
    for each row when (old.status is distinct from new.status) execute function audit_run();

-- A lane is held by the queue and released by a person.
create function audit_hold() returns trigger language plpgsql as $$
begin
    perform record_act(case when new.held_at is null then 'lane.released' else 'lane.held' end, 'lane', new.id::text,
                       new.run_id,
                       jsonb_build_object('heldAt', old.held_at, 'fingerprint', old.hold_fingerprint),
                       jsonb_build_object('heldAt', new.held_at, 'fingerprint', new.hold_fingerprint),
                       new.hold_reason);
    return null;
end
$$;
create trigger lane_hold_is_audited after update of held_at on lane
    for each row when (old.held_at is distinct from new.held_at) execute function audit_hold();
