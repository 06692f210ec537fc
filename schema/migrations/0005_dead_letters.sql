-- Jobs that gave up, kept with everything needed to understand and redrive them, apart from the jobs.

create type dlq_reason as enum
    ('staleness_timeout', 'max_retries_exceeded', 'dependency_cycle_detected', 'worker_unavailable', 'manual_dlq',
     'non_retryable', 'crash_loop');
create type dlq_resolution_status as enum ('pending', 'manually_resolved', 'permanently_failed', 'cancelled');

create table dead_letter (
    id              bigint generated always as identity primary key,
    job_id          bigint not null,
    -- The epoch of the job that gave up.
    epoch           int not null,
    run_id          uuid not null,
    lane_id         bigint not null,
    kind            job_kind not null,
    model           text,
    reason          dlq_reason not null,
    status          dlq_resolution_status not null default 'pending',
    error_code      text not null,
    error_message   text not null,
    -- Groups crashes that look the same; null for what did not crash.
    fingerprint     text,
    original_state  job_state not null,
    -- The job and what it was asked, as they were.
    snapshot        jsonb not null,
    -- All its attempts, oldest first.
    attempts        jsonb not null,
    metadata        jsonb not null default '{}',
    created_at      timestamptz not null default clock_timestamp(),
    resolved_at     timestamptz,
    resolved_by     text,
    notes           text,
    redriven_at     timestamptz,
    check ((status = 'pending') = (resolved_at is null) and (status = 'pending') = (resolved_by is null))
);
-- One open entry a job.
create unique index dead_letter_open on dead_letter (job_id) where status = 'pending';
