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
    subject_kind text not null check (subject_kind in ('run', 'job', 'lane', 'node', 'queue', 'definition', 'dead_letter', 'limit')),
    subject_id   text not null,
    -- The run that it concerns, if one.
    run_id       uuid,
    -- What of the subject changed; null where there was or is nothing.
    before       jsonb,
    after        jsonb,
    note         text
);
create index audit_by_subject on audit (subject_kind, subject_id, id);
create index audit_by_time on audit (at, id);
create index audit_by_run on audit (run_id, id) where run_id is not null;

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the audit is append-only' using errcode = 'restrict_violation';
end
$$;
create trigger audit_is_append_only before update or delete or truncate on audit
    for each statement execute function refuse_change();

-- Records one act in the name of whom the transaction acts for. In plpgsql, which keeps its plan: a cancel calls it for each
-- lane.
create function record_act(
    p_action text, p_subject_kind text, p_subject_id text, p_run uuid default null,
    p_before jsonb default null, p_after jsonb default null, p_note text default null
) returns void language plpgsql as $$
begin
    insert into audit (actor, role, request_id, action, subject_kind, subject_id, run_id, before, after, note)
    values (coalesce(nullif(current_setting('runlane.actor', true), ''), 'system'),
            nullif(current_setting('runlane.role', true), ''),
            nullif(current_setting('runlane.request_id', true), ''),
            p_action, p_subject_kind, p_subject_id, p_run, p_before, p_after, p_note);
end
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

-- A lane that closes cancels what waits in it: many jobs at once, without an attempt of any.
create function audit_lane() returns trigger language plpgsql as $$
begin
    perform record_act(case when new.is_open then 'lane.opened' else 'lane.closed' end, 'lane', new.id::text, new.run_id,
                       jsonb_build_object('isOpen', old.is_open, 'pending', old.pending, 'cancelled', old.cancelled),
                       jsonb_build_object('isOpen', new.is_open, 'pending', new.pending, 'cancelled', new.cancelled));
    return null;
end
$$;
create trigger lane_is_audited after update of is_open on lane
    for each row when (old.is_open is distinct from new.is_open) execute function audit_lane();

-- What a person's act can change of a run. Stands still between two looks of a transaction that holds the run's lanes.
create function run_facts(p_run uuid) returns jsonb language sql as $$
    select jsonb_build_object(
               'status', r.status, 'priority', r.priority, 'cancelMode', r.cancel_mode, 'budgetUsd', r.budget_usd,
               'pending', coalesce(sum(l.pending) filter (where l.model is not null), 0),
               'failed', coalesce(sum(l.failed) filter (where l.model is not null), 0),
               'cancelled', coalesce(sum(l.cancelled) filter (where l.model is not null), 0))
           || coalesce(jsonb_object_agg(l.kind, case when l.is_live then 'waits or runs' else 'ended' end)
                           filter (where l.model is null), '{}')
      from run r left join lane l on l.run_id = r.id
     where r.id = p_run
     group by r.id
$$;

-- What a person's act can change of a job. A waiting job of a closed lane is cancelled.
create function job_facts(p_job bigint) returns jsonb language sql as $$
    select jsonb_build_object(
               'state', case when j.state = 'pending' and not l.is_open then 'cancelled' else j.state end,
               'epoch', j.epoch, 'cancelRequested', j.cancel_requested, 'nodeId', j.node_id, 'errorCode', j.error_code)
      from current_job j join lane l on l.id = j.lane_id
     where j.id = p_job
$$;

-- Those of the facts that are others beside, or are not there.
create function differing(p_facts jsonb, p_beside jsonb) returns jsonb language sql immutable as $$
    select jsonb_object_agg(f.key, f.value)
      from jsonb_each(p_facts) as f
     where (p_beside -> f.key) is distinct from f.value
$$;

-- Records an act with what it changed; one that changed nothing leaves no record.
create function record_change(
    p_action text, p_subject_kind text, p_subject_id text, p_run uuid, p_before jsonb, p_after jsonb,
    p_note text default null
) returns void language sql as $$
    select record_act(p_action, p_subject_kind, p_subject_id, p_run,
                      differing(p_before, p_after), differing(p_after, p_before), p_note)
     where p_before is distinct from p_after
$$;
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
