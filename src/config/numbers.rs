//! The numeric settings: one table with the variable, default, range and meaning of each.

use super::example::Setting;
use super::source::Source;
use crate::domain::Limits;

macro_rules! numbers {
    ($($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $default:literal in $min:literal ..= $max:literal, $var:literal;)+) => {
        /// The numeric settings; durations carry their unit in the name.
        #[derive(Debug, Clone)]
        pub struct Numbers { $($(#[doc = $doc])+ pub $field: $ty,)+ }

        impl Default for Numbers {
            fn default() -> Self { Self { $($field: $default,)+ } }
        }

        impl Numbers {
            pub(super) fn read(source: &mut Source<'_>) -> Self {
                Self { $($field: source.number($var, $default as i128, $min as i128, $max as i128) as $ty,)+ }
            }
            pub(super) fn settings() -> Vec<Setting> {
                vec![$(Setting {
                    variable: $var,
                    default: stringify!($default).replace('_', ""),
                    range: format!("{} to {}", stringify!($min).replace('_', ""), stringify!($max).replace('_', "")),
                    doc: concat!($($doc),+).trim_ascii(),
                },)+]
            }
        }
    };
}

numbers! {
    /// Connections of the API to PostgreSQL.
    api_pool_size: u32 = 16 in 1..=1_000, "RUNLANE_API_POOL_SIZE";
    /// Connections of the orchestrator to PostgreSQL, besides one to listen.
    orchestrator_pool_size: u32 = 6 in 3..=200, "RUNLANE_ORCHESTRATOR_POOL_SIZE";
    /// How long a request waits for a connection before it is answered UNAVAILABLE.
    pool_acquire_timeout_ms: u64 = 3_000 in 100..=60_000, "RUNLANE_POOL_ACQUIRE_TIMEOUT_MS";
    /// How often what failed for want of a connection, and changed nothing, is tried again before the answer is UNAVAILABLE.
    database_retries: u32 = 1 in 0..=100, "RUNLANE_DATABASE_RETRIES";
    /// The wait before each such try.
    database_retry_delay_ms: u64 = 100 in 1..=60_000, "RUNLANE_DATABASE_RETRY_DELAY_MS";
    /// When a statement's time is up, the database may be silent for this long before the connection is taken for broken.
    database_silence_ms: u64 = 5_000 in 10..=600_000, "RUNLANE_DATABASE_SILENCE_MS";
    /// PostgreSQL ends a statement that takes longer.
    statement_timeout_ms: u64 = 30_000 in 100..=600_000, "RUNLANE_STATEMENT_TIMEOUT_MS";
    /// PostgreSQL ends a statement that waits longer for a lock.
    lock_timeout_ms: u64 = 10_000 in 100..=600_000, "RUNLANE_LOCK_TIMEOUT_MS";
    /// The largest request body in bytes.
    http_body_max_bytes: usize = 16_777_216 in 1_024..=268_435_456, "RUNLANE_HTTP_BODY_MAX_BYTES";
    /// How long one request may take.
    http_request_timeout_ms: u64 = 30_000 in 100..=600_000, "RUNLANE_HTTP_REQUEST_TIMEOUT_MS";
    /// How long a client may take to send the head of a request; so a connection that is idle for longer is closed.
    http_header_timeout_ms: u64 = 75_000 in 100..=600_000, "RUNLANE_HTTP_HEADER_TIMEOUT_MS";
    /// What clients are told to wait when a request was given up and nothing better is known.
    http_retry_after_ms: u64 = 1_000 in 1..=3_600_000, "RUNLANE_HTTP_RETRY_AFTER_MS";
    /// How long browsers may remember what other origins may do here.
    cors_max_age_seconds: u64 = 3_600 in 0..=86_400, "RUNLANE_CORS_MAX_AGE_SECONDS";
    /// How deep a GraphQL query may nest.
    graphql_depth_max: usize = 15 in 3..=100, "RUNLANE_GRAPHQL_DEPTH_MAX";
    /// How costly a GraphQL query may be: one for each field, lists times their `first`.
    graphql_complexity_max: usize = 50_000 in 100..=10_000_000, "RUNLANE_GRAPHQL_COMPLEXITY_MAX";
    /// How deep the fields, fragments and values of a GraphQL document may nest while it is read.
    graphql_recursion_max: usize = 32 in 8..=256, "RUNLANE_GRAPHQL_RECURSION_MAX";
    /// How many directives a field of a GraphQL query may have.
    graphql_directives_max: usize = 10 in 1..=100, "RUNLANE_GRAPHQL_DIRECTIVES_MAX";
    /// GraphQL documents that are kept parsed for when they are sent again: those of at most 4,096 bytes that were used last.
    graphql_documents_kept: usize = 256 in 1..=100_000, "RUNLANE_GRAPHQL_DOCUMENTS_KEPT";
    /// The longest page of a list; a larger `first` is capped to it.
    page_max: i64 = 100 in 1..=100, "RUNLANE_PAGE_MAX";
    /// Up to here `totalCount` counts rows that no counter covers; beyond, it is null.
    count_max: i64 = 10_000 in 100..=1_000_000, "RUNLANE_COUNT_MAX";
    /// Exports that this process serves at once; more are answered UNAVAILABLE.
    exports_max: usize = 8 in 1..=1_000, "RUNLANE_EXPORTS_MAX";
    /// Rows that an export reads at once.
    export_page_rows: i64 = 500 in 1..=10_000, "RUNLANE_EXPORT_PAGE_ROWS";
    /// Bytes of transcripts, as they are stored, that an export reads at once; one is always read.
    export_page_max_bytes: i64 = 2_097_152 in 1_024..=268_435_456, "RUNLANE_EXPORT_PAGE_MAX_BYTES";
    /// An export whose client takes nothing for so long is given up.
    export_stall_max_ms: u64 = 60_000 in 100..=3_600_000, "RUNLANE_EXPORT_STALL_MAX_MS";
    /// Scenarios that a definition may have.
    scenarios_max: usize = 100_000 in 1..=1_000_000, "RUNLANE_SCENARIOS_MAX";
    /// Models that a run may have.
    models_max: usize = 100 in 1..=1_000, "RUNLANE_MODELS_MAX";
    /// Jobs that a run may have.
    run_jobs_max: u64 = 1_000_000 in 1..=10_000_000, "RUNLANE_RUN_JOBS_MAX";
    /// Jobs that may wait at once in the whole queue; beyond, startRun is answered UNAVAILABLE.
    queue_waiting_jobs_max: i64 = 20_000_000 in 1..=1_000_000_000, "RUNLANE_QUEUE_WAITING_JOBS_MAX";
    /// What startRun is told to wait when the queue is that deep.
    queue_full_retry_after_ms: u64 = 30_000 in 100..=3_600_000, "RUNLANE_QUEUE_FULL_RETRY_AFTER_MS";
    /// Tokens that an answer is expected to have where nothing limits it to fewer: what estimates, budgets and limits on tokens go by until it is known.
    expected_output_tokens: i32 = 500 in 1..=1_000_000, "RUNLANE_EXPECTED_OUTPUT_TOKENS";
    /// Probes of a run that must have finished before its `maxFailureRate` is looked at, unless the run says otherwise.
    guard_min_finished: i32 = 20 in 1..=1_000_000, "RUNLANE_GUARD_MIN_FINISHED";
    /// Jobs that may wait at once in all runs of one user together.
    user_waiting_jobs_max: u64 = 2_000_000 in 1..=1_000_000_000, "RUNLANE_USER_WAITING_JOBS_MAX";
    /// Bytes of a prompt, a preamble, a template or a follow-up.
    prompt_max_bytes: usize = 100_000 in 100..=10_000_000, "RUNLANE_PROMPT_MAX_BYTES";
    /// Bytes of what a worker is sent for one probe: preamble, prompt, follow-ups, key and dimensions.
    job_payload_max_bytes: usize = 4_194_304 in 1_024..=268_435_456, "RUNLANE_JOB_PAYLOAD_MAX_BYTES";
    /// Bytes of a probe's transcript; a larger one fails its own job.
    transcript_max_bytes: usize = 4_194_304 in 1_024..=268_435_456, "RUNLANE_TRANSCRIPT_MAX_BYTES";
    /// Bytes of an analysis's result; a larger one fails its own job.
    analysis_max_bytes: usize = 16_777_216 in 1_024..=268_435_456, "RUNLANE_ANALYSIS_MAX_BYTES";
    /// Reserved for jobs that have children: how many one attempt may have.
    job_children_max: u32 = 1_000 in 1..=1_000_000, "RUNLANE_JOB_CHILDREN_MAX";
    /// Reserved for jobs that have children: how deep they may nest.
    job_depth_max: u32 = 5 in 1..=100, "RUNLANE_JOB_DEPTH_MAX";
    /// Bytes of `metadata`, and of a scenario's `dimensions`.
    metadata_max_bytes: usize = 16_384 in 256..=1_048_576, "RUNLANE_METADATA_MAX_BYTES";
    /// Bytes of all prompts and keys of a definition together.
    definition_max_bytes: u64 = 268_435_456 in 1_024..=4_294_967_296, "RUNLANE_DEFINITION_MAX_BYTES";
    /// Dimensions that a definition may have.
    dimensions_max: usize = 50 in 1..=1_000, "RUNLANE_DIMENSIONS_MAX";
    /// Bytes of a dimension's name or of one of its values.
    dimension_max_bytes: usize = 400 in 1..=10_000, "RUNLANE_DIMENSION_MAX_BYTES";
    /// Bytes of a scenario's key.
    scenario_key_max_bytes: usize = 500 in 16..=2_000, "RUNLANE_SCENARIO_KEY_MAX_BYTES";
    /// Follow-ups that a definition may have.
    followups_max: usize = 20 in 0..=1_000, "RUNLANE_FOLLOWUPS_MAX";
    /// Characters of a name, an outside id, an idempotency key or a search text.
    name_max_chars: usize = 200 in 10..=1_000, "RUNLANE_NAME_MAX_CHARS";
    /// Characters of the reason for a pause.
    reason_max_chars: usize = 500 in 10..=10_000, "RUNLANE_REASON_MAX_CHARS";
    /// Characters of the notes about a dead letter.
    notes_max_chars: usize = 4_000 in 10..=100_000, "RUNLANE_NOTES_MAX_CHARS";
    /// Dead letters that are redriven in one transaction at most.
    redrive_batch: i64 = 500 in 1..=10_000, "RUNLANE_REDRIVE_BATCH";
    /// Failed jobs of a run that are retried in one transaction at most; claims wait that long.
    retry_batch: i32 = 1_000 in 1..=10_000, "RUNLANE_RETRY_BATCH";
    /// Mistakes in an input that one answer lists; the rest are counted.
    mistakes_max: usize = 100 in 1..=10_000, "RUNLANE_MISTAKES_MAX";
    /// Jobs of any kind that this node runs at once, for kinds without a number of their own.
    worker_concurrency: u32 = 32 in 1..=10_000, "RUNLANE_WORKER_CONCURRENCY";
    /// Warm Python processes that share the probes of this node, for each provider that needs a key or an address, and for
    /// all others together.
    warm_workers: u32 = 2 in 1..=256, "RUNLANE_WARM_WORKERS";
    /// Python processes of one job each that this node runs at once for probes, and as many for analyses.
    one_shot_workers: u32 = 16 in 1..=1_000, "RUNLANE_ONE_SHOT_WORKERS";
    /// After a process that did not start, the next start waits this long, doubled with every further failure.
    worker_restart_base_ms: u64 = 250 in 1..=60_000, "RUNLANE_WORKER_RESTART_BASE_MS";
    /// No such wait is longer.
    worker_restart_max_ms: u64 = 30_000 in 1..=3_600_000, "RUNLANE_WORKER_RESTART_MAX_MS";
    /// Bytes of requests that wait to be written to one warm process; jobs beyond wait for room.
    worker_queue_max_bytes: usize = 1_048_576 in 1..=268_435_456, "RUNLANE_WORKER_QUEUE_MAX_BYTES";
    /// How long a Python process may take from its start to its `hello`; it imports its provider's client before that.
    worker_start_timeout_ms: u64 = 60_000 in 100..=600_000, "RUNLANE_WORKER_START_TIMEOUT_MS";
    /// How long a call of a model may take to reach its provider.
    provider_connect_timeout_ms: u64 = 10_000 in 100..=600_000, "RUNLANE_PROVIDER_CONNECT_TIMEOUT_MS";
    /// How long a provider may send nothing before a call of a model is given up, besides the attempt's deadline.
    provider_read_timeout_ms: u64 = 300_000 in 100..=86_400_000, "RUNLANE_PROVIDER_READ_TIMEOUT_MS";
    /// The longest line that a worker may write, in bytes.
    worker_line_max_bytes: usize = 16_777_216 in 1_024..=1_073_741_824, "RUNLANE_WORKER_LINE_MAX_BYTES";
    /// How much of the end of a worker's stderr is kept with an attempt, in bytes.
    worker_stderr_max_bytes: usize = 8_192 in 0..=1_048_576, "RUNLANE_WORKER_STDERR_MAX_BYTES";
    /// How long a worker has to answer a cancel or an overrun deadline before it gets SIGTERM.
    worker_cancel_grace_ms: u64 = 2_000 in 10..=600_000, "RUNLANE_WORKER_CANCEL_GRACE_MS";
    /// How long a worker has after SIGTERM before it gets SIGKILL.
    worker_term_grace_ms: u64 = 2_000 in 10..=600_000, "RUNLANE_WORKER_TERM_GRACE_MS";
    /// Memory that one worker process may use, in MiB. What it allocates beyond fails in it.
    worker_memory_max_mb: u64 = 4_096 in 64..=1_048_576, "RUNLANE_WORKER_MEMORY_MAX_MB";
    /// Files that one worker process may have open.
    worker_open_files_max: u64 = 4_096 in 64..=1_048_576, "RUNLANE_WORKER_OPEN_FILES_MAX";
    /// The largest file that a worker process may write, in MiB.
    worker_file_max_mb: u64 = 1_024 in 1..=1_048_576, "RUNLANE_WORKER_FILE_MAX_MB";
    /// Processor time that a process of one job may use, in seconds, all its threads together; then it is killed.
    one_shot_cpu_max_seconds: u64 = 7_200 in 1..=604_800, "RUNLANE_ONE_SHOT_CPU_MAX_SECONDS";
    /// Losses while alone after which a job is taken for a crash loop and fails.
    crash_loop_losses: i16 = 3 in 1..=100, "RUNLANE_CRASH_LOOP_LOSSES";
    /// Jobs of one run and model that may crash alone in the same way before no more of them are started.
    crash_hold_jobs: i32 = 5 in 1..=1_000_000, "RUNLANE_CRASH_HOLD_JOBS";
    /// Outcomes that are written in one transaction at most.
    completion_batch_max: usize = 500 in 1..=10_000, "RUNLANE_COMPLETION_BATCH_MAX";
    /// Bytes of results that are written in one transaction at most, unless a single result is larger.
    completion_batch_max_bytes: usize = 67_108_864 in 1_024..=268_435_456, "RUNLANE_COMPLETION_BATCH_MAX_BYTES";
    /// A node is taken for dead when its lease is not renewed for this long.
    lease_ms: u64 = 7_500 in 300..=600_000, "RUNLANE_LEASE_MS";
    /// How often a node renews its lease; at most a third of the lease.
    lease_renewal_ms: u64 = 2_500 in 100..=200_000, "RUNLANE_LEASE_RENEWAL_MS";
    /// How often an idle node looks for work when no notification comes.
    poll_interval_ms: u64 = 5_000 in 10..=600_000, "RUNLANE_POLL_INTERVAL_MS";
    /// How often the leader looks for what has taken too long, and another node whether there is a leader.
    staleness_interval_ms: u64 = 60_000 in 50..=86_400_000, "RUNLANE_STALENESS_INTERVAL_MS";
    /// Jobs that one step of that search looks at.
    staleness_batch: i32 = 1_000 in 1..=100_000, "RUNLANE_STALENESS_BATCH";
    /// From this percentage of its threshold on a job or run is warned about.
    staleness_warn_percent: i16 = 80 in 1..=100, "RUNLANE_STALENESS_WARN_PERCENT";
    /// How often a job in process is taken back from its node as stale before it is only reported.
    staleness_requeues_max: i32 = 3 in 0..=1_000, "RUNLANE_STALENESS_REQUEUES_MAX";
    /// A run that is under way for longer is stale.
    stale_run_ms: i64 = 86_400_000 in 1..=31_536_000_000, "RUNLANE_STALE_RUN_MS";
    /// How long a stopping node lets running jobs finish before it gives them back.
    shutdown_grace_ms: u64 = 30_000 in 0..=3_600_000, "RUNLANE_SHUTDOWN_GRACE_MS";
    /// Connections that the embedded PostgreSQL takes.
    postgres_max_connections: u32 = 200 in 20..=10_000, "RUNLANE_POSTGRES_MAX_CONNECTIONS";
    /// The embedded PostgreSQL's own cache in MiB.
    postgres_shared_buffers_mb: u32 = 256 in 1..=65_536, "RUNLANE_POSTGRES_SHARED_BUFFERS_MB";
    /// How much the embedded PostgreSQL writes ahead between checkpoints, in MiB.
    postgres_max_wal_mb: u32 = 2_048 in 64..=1_048_576, "RUNLANE_POSTGRES_MAX_WAL_MB";
    /// How long the embedded PostgreSQL may take to start, recovery after a crash included.
    postgres_start_timeout_ms: u64 = 120_000 in 100..=3_600_000, "RUNLANE_POSTGRES_START_TIMEOUT_MS";
    /// How long the embedded PostgreSQL may take to shut down before recovery is left to its next start.
    postgres_stop_timeout_ms: u64 = 30_000 in 100..=3_600_000, "RUNLANE_POSTGRES_STOP_TIMEOUT_MS";
    /// How long installing the embedded PostgreSQL's programs may take.
    postgres_install_timeout_ms: u64 = 300_000 in 100..=3_600_000, "RUNLANE_POSTGRES_INSTALL_TIMEOUT_MS";
}

impl Numbers {
    /// The ceilings that input is checked against.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            scenarios_max: self.scenarios_max,
            definition_max_bytes: self.definition_max_bytes,
            dimensions_max: self.dimensions_max,
            dimension_max_bytes: self.dimension_max_bytes,
            scenario_key_max_bytes: self.scenario_key_max_bytes,
            prompt_max_bytes: self.prompt_max_bytes,
            job_payload_max_bytes: self.job_payload_max_bytes,
            followups_max: self.followups_max,
            metadata_max_bytes: self.metadata_max_bytes,
            name_max_chars: self.name_max_chars,
            reason_max_chars: self.reason_max_chars,
            notes_max_chars: self.notes_max_chars,
            models_max: self.models_max,
            run_jobs_max: self.run_jobs_max,
            guard_min_finished: self.guard_min_finished,
            page_max: self.page_max,
            mistakes_max: self.mistakes_max,
        }
    }
}
