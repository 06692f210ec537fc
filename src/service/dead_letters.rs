//! Dead letters: who sees them, and what is done about them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::access::{not_found, parse_id, require_writer};
use super::{Entity, Error, Result, Service};
use crate::domain::dead_letter::{
    DeadLetter, DeadLetterFilter, DeadLetterReason, DeadLetterStatus, Lookalikes, Redrive, Redriven,
    Resolution,
};
use crate::domain::page::{Page, PageRequest};
use crate::domain::request::{notes, redrive_rate};
use crate::domain::view::Job;
use crate::domain::{Checker, Requester, Role, json as json_rules};
use crate::store::{EntryHead, JobHead, NewResolution};

impl Service {
    /// The dead letter with this id; none also for one of a run that this person may not see.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn dead_letter(&self, requester: &Requester, id: &str) -> Result<Option<DeadLetter>> {
        let Ok(id) = id.parse::<i64>() else { return Ok(None) };
        let entry = self.store.dead_letter(id).await.map_err(|e| self.failed(e))?;
        Ok(entry.filter(|entry| requester.may_see(&entry.owner)))
    }

    /// The dead letters that this person may see, newest first.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn dead_letters(
        &self,
        requester: &Requester,
        filter: &DeadLetterFilter,
        page: &PageRequest<i64>,
    ) -> Result<Page<DeadLetter>> {
        let filter = visible(requester, filter.clone());
        let count_max = self.config.numbers.count_max;
        self.store.dead_letters(&filter, page, count_max).await.map_err(|e| self.failed(e))
    }

    /// How many of them there are for each reason, most first.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn dead_letters_by_reason(
        &self,
        requester: &Requester,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<(DeadLetterReason, i64)>> {
        let filter = visible(requester, filter.clone());
        self.store.dead_letters_by_reason(&filter).await.map_err(|e| self.failed(e))
    }

    /// Those that look the same, the most frequent first.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn dead_letters_by_fingerprint(
        &self,
        requester: &Requester,
        filter: &DeadLetterFilter,
        limit: i64,
    ) -> Result<Vec<Lookalikes>> {
        let filter = visible(requester, filter.clone());
        self.store.dead_letters_by_fingerprint(&filter, limit).await.map_err(|e| self.failed(e))
    }

    /// The dead letters of these jobs, newest first. Trusts that the caller was shown the jobs.
    ///
    /// # Errors
    /// Only failures of the server.
    pub async fn dead_letters_of(&self, jobs: &[i64]) -> Result<HashMap<i64, Vec<DeadLetter>>> {
        let mut found: HashMap<i64, Vec<DeadLetter>> = HashMap::new();
        for entry in self.store.dead_letters_of(jobs).await.map_err(|e| self.failed(e))? {
            found.entry(entry.job_id).or_default().push(entry);
        }
        Ok(found)
    }

    /// Closes a dead letter and leaves its job alone. Closing it in the same way again changes nothing.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, VALIDATION_ERROR; CONFLICT when it was closed in another way.
    pub async fn resolve_dead_letter(
        &self,
        requester: &Requester,
        id: &str,
        resolution: Resolution,
        text: Option<String>,
        metadata: Option<Value>,
    ) -> Result<DeadLetter> {
        require_writer(requester)?;
        let new = NewResolution {
            resolution,
            notes: notes(text, &self.limits)?,
            metadata: self.checked_metadata(metadata)?,
        };
        let entry: i64 = parse_id(Entity::DeadLetter, id)?;
        let (who, asked) = (requester.clone(), id.to_owned());
        let outcome = self
            .store
            .acting_for(requester)
            .resolve_dead_letter(entry, new, move |entry| allow_resolution(&who, entry, resolution, &asked))
            .await
            .map_err(|e| self.failed(e))?;
        outcome.ok_or_else(|| not_found(Entity::DeadLetter, id))??;
        tracing::info!(dead_letter_id = entry, %resolution, by = requester.subject, "dead letter resolved");
        self.dead_letter(requester, id).await?.ok_or_else(|| not_found(Entity::DeadLetter, id))
    }

    /// Makes the jobs of dead letters wait again: of all that are open and pass the filter, in this person's runs.
    ///
    /// # Errors
    /// FORBIDDEN, VALIDATION_ERROR.
    pub async fn redrive_dead_letters(&self, requester: &Requester, redrive: Redrive) -> Result<Redriven> {
        require_writer(requester)?;
        redrive_rate(redrive.per_minute)?;
        let mut filter = visible(requester, redrive.filter);
        filter.statuses.get_or_insert_with(|| vec![DeadLetterStatus::Pending]);
        let redrive = Redrive { filter, ..redrive };
        let done = self
            .store
            .acting_for(requester)
            .redrive_dead_letters(&redrive, self.config.numbers.redrive_batch)
            .await
            .map_err(|e| self.failed(e))?;
        if !redrive.dry_run {
            let (matched, redriven) = (done.matched, done.redriven);
            tracing::info!(matched, redriven, by = requester.subject, "dead letters redriven");
        }
        Ok(done)
    }

    /// Gives up a job that waits: it fails, and its dead letter says who gave it up and why.
    ///
    /// # Errors
    /// FORBIDDEN, NOT_FOUND, VALIDATION_ERROR, JOB_VALIDATION_ERROR.
    pub async fn dead_letter_job(
        &self,
        requester: &Requester,
        id: &str,
        text: Option<String>,
    ) -> Result<Job> {
        require_writer(requester)?;
        let text = notes(text, &self.limits)?;
        let job_id: i64 = parse_id(Entity::Job, id)?;
        let by = &requester.subject;
        let why = match &text {
            Some(text) => format!("{by} gave it up: {text}"),
            None => format!("{by} gave it up"),
        };
        let metadata = json!({ "by": by, "notes": text });
        let (who, asked) = (requester.clone(), id.to_owned());
        let outcome = self
            .store
            .acting_for(requester)
            .bury_job(job_id, &why, metadata, move |job| allow_burial(&who, job, &asked))
            .await
            .map_err(|e| self.failed(e))?;
        outcome.ok_or_else(|| not_found(Entity::Job, id))??;
        tracing::info!(job_id, by, "job given up");
        self.job(requester, id).await?.ok_or_else(|| not_found(Entity::Job, id))
    }

    fn checked_metadata(&self, metadata: Option<Value>) -> Result<Option<Value>> {
        let Some(metadata) = metadata.filter(|m| !m.is_null()) else { return Ok(None) };
        let mut checker = Checker::new("metadata", self.limits.mistakes_max);
        json_rules::check_json(&mut checker, &metadata, self.limits.metadata_max_bytes);
        if !metadata.is_object() {
            checker.error("is no object: give one, such as {\"ticket\": 17}");
        }
        checker.finish()?;
        Ok(Some(metadata))
    }
}

/// Narrows a filter to what this person may see.
fn visible(requester: &Requester, filter: DeadLetterFilter) -> DeadLetterFilter {
    match requester.role {
        Role::User => DeadLetterFilter { visible_to: Some(requester.subject.clone()), ..filter },
        Role::Viewer | Role::Admin => filter,
    }
}

/// Whether `who` may close the entry so, and whether that changes anything.
fn allow_resolution(who: &Requester, entry: &EntryHead, resolution: Resolution, asked: &str) -> Result<bool> {
    if !who.may_control(&entry.owner) {
        return Err(not_found(Entity::DeadLetter, asked));
    }
    if entry.status == DeadLetterStatus::Pending {
        return Ok(true);
    }
    if entry.status.as_str() == resolution.as_str() {
        return Ok(false);
    }
    Err(Error::Conflict(format!(
        "The dead letter {asked} was closed as {} by {}: it cannot be closed as {resolution} as well.",
        entry.status,
        entry.resolved_by.as_deref().unwrap_or("somebody")
    )))
}

/// Whether `who` may give up the job as it is now.
fn allow_burial(who: &Requester, job: &JobHead, asked: &str) -> Result<()> {
    if !who.may_control(&job.run.created_by) {
        return Err(not_found(Entity::Job, asked));
    }
    job.state.allow_burial(job.id)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{JobKind, JobState, RunStatus};
    use crate::store::RunHead;

    fn who(subject: &str, role: Role) -> Requester {
        Requester { subject: subject.to_owned(), role, group: None, request_id: String::new() }
    }

    #[test]
    fn an_entry_is_closed_once_by_its_owner_or_an_admin_and_the_same_again_changes_nothing() {
        let entry = |status, resolved_by: Option<&str>| EntryHead {
            status,
            owner: "ada".to_owned(),
            resolved_by: resolved_by.map(str::to_owned),
        };
        let open = entry(DeadLetterStatus::Pending, None);
        let closed = entry(DeadLetterStatus::Cancelled, Some("eve"));
        for &resolution in Resolution::ALL {
            let bob = allow_resolution(&who("bob", Role::User), &open, resolution, "7");
            assert_eq!(bob.unwrap_err().code(), "NOT_FOUND");
            for person in [who("ada", Role::User), who("root", Role::Admin)] {
                assert!(allow_resolution(&person, &open, resolution, "7").unwrap());
                match allow_resolution(&person, &closed, resolution, "7") {
                    Ok(changes) => assert!(!changes && resolution == Resolution::Cancelled),
                    Err(error) => assert_eq!(
                        error.to_string(),
                        format!(
                            "The dead letter 7 was closed as cancelled by eve: it cannot be closed as {resolution} as well."
                        )
                    ),
                }
            }
        }
    }

    #[test]
    fn only_what_waits_is_given_up_by_hand() {
        for &state in JobState::ALL {
            let run = RunHead {
                id: uuid::Uuid::nil(),
                status: RunStatus::Running,
                created_by: "ada".to_owned(),
                is_out_of_budget: false,
            };
            let job = JobHead { id: 7, state, kind: JobKind::ProbeScenario, run };
            let allowed = allow_burial(&who("ada", Role::User), &job, "7").is_ok();
            assert_eq!(allowed, state == JobState::Pending, "{state}");
            let other = allow_burial(&who("bob", Role::User), &job, "7").unwrap_err();
            assert_eq!(other.code(), "NOT_FOUND");
        }
    }
}
