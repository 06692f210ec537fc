//! Exports as bytes: rows in, pieces of a file out. What is held at once is a page of rows, or a row group of Parquet.

mod lines;
mod parquet;

use crate::domain::export::{ExportFormat, ExportRow, ExportSubject};
use crate::service::{self, ExportRows};

/// Why a file could not be written to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows could not be read.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// A row could not be written as JSON.
    #[error("a row cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A row could not be written as CSV.
    #[error("a row cannot be written as CSV: {0}")]
    Csv(#[from] csv::Error),
    /// A row group could not be written.
    #[error("a row group cannot be written as Parquet: {0}")]
    Parquet(#[from] ::parquet::errors::ParquetError),
    /// Bytes could not be collected.
    #[error("an export cannot be buffered: {0}")]
    Buffer(#[from] std::io::Error),
}

/// Turns rows into the bytes of one format.
trait Encoder: Send {
    /// Takes rows; appends what is ready.
    fn write(&mut self, rows: Vec<ExportRow>, out: &mut Vec<u8>) -> Result<(), Error>;
    /// Appends what is left when all rows were taken.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error>;
}

/// One file in the making.
pub struct Export {
    rows: ExportRows,
    encoder: Box<dyn Encoder>,
    is_finished: bool,
}

impl Export {
    /// A file of these rows.
    ///
    /// # Errors
    /// When the format refuses the columns.
    pub fn new(rows: ExportRows, subject: ExportSubject, format: ExportFormat) -> Result<Self, Error> {
        let columns = subject.columns();
        let encoder: Box<dyn Encoder> = match format {
            ExportFormat::Jsonl => Box::new(lines::Jsonl::new(columns)),
            ExportFormat::Csv => Box::new(lines::Csv::new(columns)),
            ExportFormat::Parquet => Box::new(parquet::Parquet::new(subject)?),
        };
        Ok(Self { rows, encoder, is_finished: false })
    }

    /// The next piece of the file, never empty; none after the last.
    ///
    /// # Errors
    /// [`Error`]; the file is not whole then.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut piece = Vec::new();
        while piece.is_empty() {
            if self.is_finished {
                return Ok(None);
            }
            match self.rows.next().await? {
                Some(rows) => self.encoder.write(rows, &mut piece)?,
                None => {
                    self.is_finished = true;
                    self.encoder.finish(&mut piece)?;
                }
            }
        }
        Ok(Some(piece))
    }
}
