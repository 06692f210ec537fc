-- The tables of Runlane. docs/architecture.md explains how they work together.

create type run_status as enum ('PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED');
create type job_kind as enum ('probe:scenario', 'analyze:basic', 'analyze:deep');
create type job_state as enum ('pending', 'active', 'completed', 'failed', 'cancelled');
create type attempt_outcome as enum
    ('completed', 'failed', 'retried', 'throttled', 'lost', 'released', 'cancelled');
comment on type run_status is 'Where a run stands. COMPLETED, FAILED and CANCELLED are final, save that a retry reopens the first two.';
comment on type job_kind is 'What a job does: put a scenario to a model, or analyse a run.';
comment on type job_state is 'Where a job stands. A waiting job of a closed lane counts as cancelled, whatever its row says.';
comment on type attempt_outcome is
    'How a claim ended. Only failed and retried count against the job; lost is counted on its own.';

-- Definitions and scenarios are immutable: creating one with an existing name makes the next version.
create table definition (
    id             uuid primary key,
    seq            bigint generated always as identity,
    name           text not null,
    version        int not null check (version >= 1),
    content        jsonb not null,
    scenario_count int not null check (scenario_count >= 1),
    created_by     text not null,
    created_at     timestamptz not null default now(),
    constraint definition_name_version unique (name, version)
);
-- Lists are newest first.
create unique index definition_seq on definition (seq);

create table scenario (
    id            bigint generated always as identity primary key,
    definition_id uuid not null references definition (id) on delete cascade,
    key           text not null,
    name          text not null,
    prompt        text not null,
    dimensions    jsonb not null,
    -- Byte order, so that lists by key do not depend on the database's collation.
    constraint scenario_key unique (definition_id, key)
);
create unique index scenario_by_key on scenario (definition_id, key collate "C");

create table run (
    id                  uuid primary key,
    seq                 bigint generated always as identity,
    batch_id            uuid not null,
    -- The X-Request-ID of the request that made it: found again in every log line about its jobs.
    request_id          text not null,
    definition_id       uuid not null references definition (id),
    definition_snapshot jsonb not null,
    name                text,
    experiment_id       text,
    models              text[] not null check (cardinality(models) >= 1),
    params              jsonb not null,
    status              run_status not null default 'PENDING',
    priority            smallint not null check (priority between 0 and 100),
    max_concurrency     int check (max_concurrency >= 1),
    -- US dollars.
    budget_usd          numeric check (budget_usd > 0),
    sample_percentage   smallint not null check (sample_percentage between 1 and 100),
    sample_seed         int not null check (sample_seed >= 0),
    sample_algorithm    text not null,
    idempotency_key     text,
    -- SHA-256 of the input after defaults; tells a repeat from a conflict.
    input_hash          bytea,
    metadata            jsonb,
    created_by          text not null,
    created_at          timestamptz not null default now(),
    started_at          timestamptz,
    completed_at        timestamptz,
    paused_at           timestamptz,
    cancel_mode         text check (cancel_mode in ('GRACEFUL', 'IMMEDIATE')),
    updated_at          timestamptz not null default now(),
    -- Grows with every change of this row; a run's revision is this plus its lanes' versions.
    version             bigint not null default 0,
    constraint run_idempotency unique (created_by, idempotency_key),
    check ((status in ('COMPLETED', 'FAILED', 'CANCELLED')) = (completed_at is not null)),
    check ((status = 'CANCELLED') = (cancel_mode is not null)),
    check ((status = 'PAUSED') = (paused_at is not null)),
    check (status <> 'PENDING' or started_at is null)
) with (fillfactor = 80);
-- Lists are newest first; each filter of the list has its index.
create unique index run_seq on run (seq);
create index run_by_status on run (status, seq);
create index run_by_definition on run (definition_id, seq);
create index run_by_experiment on run (experiment_id, seq) where experiment_id is not null;
create index run_by_creator on run (created_by, seq);
create index run_by_batch on run (batch_id, seq);

-- The jobs of one run that share a kind and a model: the unit of scheduling, pausing, fairness and counting. The
-- counters are the only home of a run's progress. No index but the primary key, the unique one and that on is_live
-- covers a column that claims and completions change, so that their updates stay within the page (HOT).
create table lane (
    id              bigint generated always as identity primary key,
    run_id          uuid not null references run (id) on delete cascade,
    kind            job_kind not null,
    model           text,
    -- The place of the model in the run's list.
    position        smallint not null,
    priority        smallint not null check (priority between 0 and 100),
    -- Copied from the run, so that a claim reads this table only.
    max_concurrency int check (max_concurrency >= 1),
    -- What one job of it is expected to ask of its provider: calls, and tokens in and out.
    requests        int not null default 1 check (requests >= 1),
    tokens          int not null default 0 check (tokens >= 0),
    is_paused       boolean not null default false,
    -- A closed lane's waiting jobs are cancelled by definition; maintenance rewrites their rows later.
    is_open         boolean not null default true,
    closed_at       timestamptz,
    -- False while rows of waiting jobs of a closed lane are still to be rewritten.
    is_settled      boolean not null default true,
    -- When rows of it were last taken back because it is about to be opened again: maintenance leaves it alone for a while.
    reopening_at    timestamptz,
    -- Whether anything waits or runs.
    is_live         boolean not null,
    total           int not null check (total >= 0),
    pending         int not null check (pending >= 0),
    active          int not null default 0 check (active >= 0),
    completed       int not null default 0 check (completed >= 0),
    failed          int not null default 0 check (failed >= 0),
    cancelled       int not null default 0 check (cancelled >= 0),
    -- How many fresh jobs it has, and where: beyond one id and up to another, all due since fresh_at. A claim moves
    -- fresh_after on, so nothing that was claimed is looked at again. Others may have ids in between.
    fresh           int not null default 0 check (fresh >= 0),
    fresh_after     bigint not null default 0,
    fresh_until     bigint not null default 0,
    fresh_at        timestamptz,
    -- What its tokens cost, as the worker protocol has it: fixed when the run is started. Null: unknown.
    pricing         jsonb,
    -- US dollars for all of its attempts, whatever became of them; null while no price is known.
    cost_usd        numeric,
    -- Nothing more of it starts until somebody releases it: too many of its jobs crash alone in the same way.
    held_at          timestamptz,
    hold_reason      text,
    hold_fingerprint text,
    updated_at      timestamptz not null default now(),
    version         bigint not null default 0,
    constraint lane_identity unique nulls not distinct (run_id, kind, model),
    constraint lane_adds_up check (pending + active + completed + failed + cancelled = total),
    check (is_live = (pending + active > 0)),
    check (is_open = (closed_at is null)),
    check (is_open or pending = 0),
    check ((held_at is null) = (hold_reason is null) and (held_at is null) = (hold_fingerprint is null)),
    check ((kind = 'probe:scenario') = (model is not null)),
    check (fresh = 0 or fresh_at is not null)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
-- What a claim and queueStatus read: the few lanes in which anything waits or runs.
create index lane_live on lane (id) where is_live;
-- What maintenance reads: closed lanes whose waiting rows are still to be rewritten.
create index lane_unsettled on lane (id) where not is_settled;

-- One unit of work. Rows are inserted by one statement from lanes and scenarios that exist, and are deleted only with
-- their run, so no foreign keys: their triggers would cost more than the insert. The first claim of a job leaves its row
-- as it is, and its end makes the first new version: `current_job` says where each stands. No index names anything that
-- claims and ends change, and there is room for new versions in the page, so they write no index (HOT). What finds jobs by
-- their state stands beside this table; a completed probe is found by its transcript.
create table job (
    id               bigint generated always as identity primary key,
    lane_id          bigint not null,
    scenario_id      bigint,
    sample           smallint not null default 0,
    state            job_state not null default 'pending',
    -- Nothing was written to it since its run was started. Beyond its lane's fresh_after it waits for nothing but its turn,
    -- and is not in waiting_job; up to there a node has it, and which one says the row of `claim` that names it.
    is_fresh         boolean not null default false,
    -- Was in a worker that died; runs alone until it has answered.
    is_suspect       boolean not null default false,
    cancel_requested boolean not null default false,
    -- How many claims there were: the number of the latest.
    claims           int not null default 0,
    -- Grows when a failed job is retried; failures, losses and throttles count within the epoch.
    epoch            int not null default 0,
    -- The number of claims when the epoch began.
    epoch_claims     int not null default 0,
    failures         smallint not null default 0,
    losses           smallint not null default 0,
    -- Losses while the only job of its worker.
    losses_alone     smallint not null default 0,
    throttles        int not null default 0,
    -- Milliseconds waited for throttling.
    throttled_ms     bigint not null default 0,
    run_at           timestamptz not null,
    -- Since when it waits for its next attempt; of no meaning before the first of its epoch.
    waits_since      timestamptz,
    -- Who has it, or completed it, if it is a probe.
    node_id          uuid,
    -- The row of `claim` that it was taken with; of no meaning unless it is active.
    claim_id         bigint,
    claimed_at       timestamptz,
    finished_at      timestamptz,
    error_code       text,
    error_message    text,
    error_retryable  boolean,
    constraint job_identity unique nulls not distinct (lane_id, scenario_id, sample),
    check (not is_fresh or state = 'pending' and claims = 0 and epoch = 0),
    check ((state = 'active' or state = 'completed' and scenario_id is not null) = (node_id is not null)),
    check (state <> 'active' or (claims > 0 and claimed_at is not null)),
    check ((state in ('completed', 'failed', 'cancelled')) = (finished_at is not null)),
    check (state <> 'completed' or (claims > 0 and claimed_at is not null and error_code is null)),
    check (state <> 'failed' or error_code is not null),
    check ((error_code is null) = (error_message is null) and (error_code is null) = (error_retryable is null))
) with (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

-- One claim of a job and how it ended. One in progress stands in `claim`; if it completes a probe, it then stands in the job's
-- row, as nothing follows it; every other is written here when it ends. `attempt` has all that ended.
create table past_attempt (
    job_id        bigint not null,
    number        int not null check (number >= 1),
    node_id       uuid not null,
    started_at    timestamptz not null,
    ended_at      timestamptz not null,
    outcome       attempt_outcome not null,
    error_code    text,
    error_message text,
    stderr_tail   text,
    usage         jsonb,
    -- US dollars for that usage; null while no price is known, and of a completed one, whose transcript has it.
    cost_usd      numeric check (cost_usd >= 0),
    -- What the crash looked like, where this job may be its cause: 16 hexadecimal digits and some words.
    fingerprint   text,
    primary key (job_id, number),
    check ((outcome in ('completed', 'released')) = (error_code is null))
);

create view attempt as
select job_id, number, node_id, started_at, ended_at, outcome, error_code, error_message, stderr_tail, usage, cost_usd,
       fingerprint
  from past_attempt
union all
select id, claims, node_id, claimed_at, finished_at, 'completed', null, null, null, null, null, null
  from job where state = 'completed' and scenario_id is not null;
comment on view attempt is 'Every attempt that has ended, of jobs that are not archived. Ask for it by job_id.';

-- What a completed probe returned.
create table transcript (
    job_id        bigint not null,
    seq           bigint generated always as identity,
    lane_id       bigint not null,
    scenario_id   bigint not null,
    model_version text,
    -- As the worker wrote it: nothing here looks into it, and to take it apart would cost as much as the rest of an end.
    turns         json not null check (json_typeof(turns) = 'array'),
    usage         jsonb not null check (jsonb_typeof(usage) = 'object'),
    score         int,
    cost_usd      numeric check (cost_usd >= 0),
    latency_ms    int not null check (latency_ms >= 0),
    created_at    timestamptz not null,
    -- The lane is its job's. In this order it lists the lane's completed jobs.
    primary key (lane_id, job_id)
);
-- Lists are newest first, by model.
create index transcript_by_lane on transcript (lane_id, seq);

-- The latest result of each analysis of a run; its status is its job's.
create table analysis (
    run_id      uuid not null references run (id) on delete cascade,
    kind        job_kind not null check (kind <> 'probe:scenario'),
    job_id      bigint not null,
    result      jsonb not null,
    coverage    jsonb not null,
    warnings    text[] not null,
    computed_at timestamptz not null,
    -- When the result was really computed, if it was found to hold at computed_at.
    cached_from timestamptz check (cached_from < computed_at),
    primary key (run_id, kind)
);

-- Failed jobs by error code, so that a filtered list has an exact count.
create table lane_error (
    lane_id    bigint not null references lane (id) on delete cascade,
    error_code text not null,
    failed     int not null check (failed >= 0),
    primary key (lane_id, error_code)
) with (fillfactor = 50);

-- Jobs whose worker died while they were alone in it, by what that looked like, since the lane was released last: many
-- jobs with one fingerprint hold the lane.
create table lane_crash (
    lane_id     bigint not null references lane (id) on delete cascade,
    fingerprint text not null,
    job_id      bigint not null,
    primary key (lane_id, fingerprint, job_id)
);

-- Jobs that completed and failed, by minute. Sharded by node, so that nodes do not wait for each other; a new row each
-- minute, so that no row is updated for ever. Kept for a day.
create table queue_minute (
    minute    timestamptz not null,
    kind      job_kind not null,
    node_id   uuid not null,
    completed int not null,
    failed    int not null,
    primary key (minute, kind, node_id)
) with (fillfactor = 50);

-- The one row that pauses everything.
create table queue_state (
    id           boolean primary key default true check (id),
    is_paused    boolean not null default false,
    paused_at    timestamptz,
    paused_by    text,
    pause_reason text,
    check (is_paused = (paused_at is not null) and is_paused = (paused_by is not null)),
    check (is_paused or pause_reason is null)
);
insert into queue_state default values;

-- A ceiling that all nodes share, on a provider or on one model of it, and what is left of it. Claims take from it under
-- its lock, so no number of nodes exceeds it. Rows without a ceiling are there for their holds.
create table rate_limit (
    id                  bigint generated always as identity primary key,
    -- A provider (`openai`) or a model (`openai/gpt-5`).
    name                text not null constraint rate_limit_name unique,
    -- The ceilings; null sets none.
    in_flight_max       int check (in_flight_max >= 1),
    requests_per_minute int check (requests_per_minute >= 1),
    tokens_per_minute   int check (tokens_per_minute >= 1),
    -- Who set them: a person, or `configuration`; null where nobody did.
    set_by              text,
    set_at              timestamptz,
    -- Jobs in flight that the provider bears: halved when it asks to slow down, grown by what completes, and null again
    -- when it has reached the ceiling.
    concurrency         double precision check (concurrency >= 1),
    slowed_at           timestamptz,
    -- Two buckets that fill steadily, so that a minute's allowance is not spent at once; as of filled_at.
    requests_left       double precision not null default 1,
    tokens_left         double precision not null default 1,
    filled_at           timestamptz not null default clock_timestamp(),
    -- The provider asked to wait.
    held_until          timestamptz,
    -- Nothing more starts until somebody has looked: the key is refused, or the account is empty.
    held_at             timestamptz,
    hold_code           text,
    hold_reason         text,
    check ((held_at is null) = (hold_code is null) and (held_at is null) = (hold_reason is null)),
    check ((set_by is null) = (set_at is null))
) with (fillfactor = 50);

-- One thing that a limit counts, and what remains of it. A job that needs more than `cap`, which is all that there ever
-- is, needs the whole. `opens_at`: when something that remains not now will, if that is known.
create type room as (
    limit_id bigint,
    name     text,
    part     text,
    remains  double precision,
    cap      double precision,
    opens_at timestamptz
);

-- What was granted of the limits by the minute, by second, for as long as it counts.
create table rate_grant (
    limit_id bigint not null references rate_limit (id) on delete cascade,
    second   timestamptz not null,
    requests int not null,
    tokens   bigint not null,
    primary key (limit_id, second)
) with (fillfactor = 50);

-- One running process. Its lease is the only sign of life that counts.
create table node (
    id          uuid primary key,
    name        text not null,
    version     text not null,
    started_at  timestamptz not null default now(),
    lease_until timestamptz not null,
    executes    boolean not null,
    -- The models' providers that its workers can call.
    providers   text[] not null default '{}',
    -- Claims nothing more: an admin said so, or it stops.
    is_draining boolean not null default false,
    -- Its process ends: nobody takes that back.
    is_stopping boolean not null default false,
    -- What it said of itself when it last renewed its lease. No index covers any of it, so renewals stay within the page.
    renewed_at      timestamptz not null default clock_timestamp(),
    -- Jobs of each kind that it can run and that it runs.
    slots           jsonb not null default '{}',
    active          jsonb not null default '{}',
    -- Renewals that failed, and results that came too late, since it registered.
    failed_renewals bigint not null default 0,
    late_results    bigint not null default 0
) with (fillfactor = 50);

-- Since when leases can be judged: while the server was down nobody could renew. Unlogged, so that it is empty after
-- whatever breaks sessions without a restart of the whole server: recovery from a crash, and the promotion of a standby.
-- The first sweep after that writes the time.
create unlogged table lease_watch (
    id    boolean primary key default true check (id),
    since timestamptz not null
);
insert into lease_watch (since) values (clock_timestamp());
