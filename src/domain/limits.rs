//! How large what people send may be. The numbers come from the configuration (`config::Numbers::limits`).

/// The ceilings that input is checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Scenarios of a definition.
    pub scenarios_max: usize,
    /// Bytes of all prompts and keys of a definition together.
    pub definition_max_bytes: u64,
    /// Dimensions of a definition.
    pub dimensions_max: usize,
    /// Bytes of a dimension's name or of one of its values.
    pub dimension_max_bytes: usize,
    /// Bytes of a scenario's key.
    pub scenario_key_max_bytes: usize,
    /// Bytes of a prompt, a preamble, a template or a follow-up.
    pub prompt_max_bytes: usize,
    /// Bytes of what a worker is sent for one probe.
    pub job_payload_max_bytes: usize,
    /// Follow-ups of a definition.
    pub followups_max: usize,
    /// Bytes of `metadata`, and of a scenario's `dimensions`, as compact JSON.
    pub metadata_max_bytes: usize,
    /// Characters of a name, an outside id, an idempotency key or a search text.
    pub name_max_chars: usize,
    /// Characters of the reason for a pause.
    pub reason_max_chars: usize,
    /// Characters of the notes about a dead letter.
    pub notes_max_chars: usize,
    /// Models of a run.
    pub models_max: usize,
    /// Jobs of a run.
    pub run_jobs_max: u64,
    /// Probes that must have finished before a guard looks at their failures, unless a run says otherwise.
    pub guard_min_finished: i32,
    /// The longest page of a list.
    pub page_max: i64,
    /// Mistakes that one answer lists.
    pub mistakes_max: usize,
}
