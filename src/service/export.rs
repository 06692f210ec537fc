//! A run's results as rows, for whoever may see the run.

use std::collections::VecDeque;

use uuid::Uuid;

use super::{Error, Result, Service, access};
use crate::domain::Requester;
use crate::domain::export::{ExportRow, ExportSubject};
use crate::service::Entity;
use crate::store::ExportPage;

/// The rows of one export, read page by page. Nothing is held in the database between two pages.
#[derive(Debug)]
pub struct ExportRows {
    service: Service,
    run: Uuid,
    subject: ExportSubject,
    lanes: VecDeque<i64>,
    after: i64,
}

impl Service {
    /// The rows of an export of a run that this person may see.
    ///
    /// # Errors
    /// NOT_FOUND without one.
    pub async fn export(
        &self,
        requester: &Requester,
        run: &str,
        subject: ExportSubject,
    ) -> Result<ExportRows> {
        let found = self.run(requester, run).await?;
        let run = found.ok_or_else(|| access::not_found(Entity::Run, run))?.id;
        let lanes = self.store.probe_lanes(run).await.map_err(|e| self.failed(e))?.into();
        Ok(ExportRows { service: self.clone(), run, subject, lanes, after: 0 })
    }
}

impl ExportRows {
    /// The next rows; none when all have been read. Jobs that end or are archived meanwhile come at most once.
    ///
    /// # Errors
    /// NOT_FOUND when the run was deleted meanwhile: what was read is not all. Failures of the server.
    pub async fn next(&mut self) -> Result<Option<Vec<ExportRow>>> {
        let Self { service, run, subject, lanes, after } = self;
        let (store, n) = (&service.store, &service.config.numbers);
        let page = ExportPage { rows: n.export_page_rows, bytes: n.export_page_max_bytes };
        while let Some(&lane) = lanes.front() {
            let rows = match subject {
                ExportSubject::Transcripts => store.export_transcripts(lane, *after, page).await,
                ExportSubject::Scores => store.export_scores(lane, *after, page).await,
            };
            let rows = rows.map_err(|e| service.failed(e))?;
            if let Some(&(last, _)) = rows.last() {
                *after = last;
                return Ok(Some(rows.into_iter().map(|(_, row)| row).collect()));
            }
            lanes.pop_front();
            *after = 0;
        }
        match store.run(*run).await.map_err(|e| service.failed(e))? {
            Some(_) => Ok(None),
            None => Err(Error::NotFound { what: Entity::Run, id: run.to_string() }),
        }
    }
}
