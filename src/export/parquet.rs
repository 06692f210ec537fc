//! Parquet: columns, in row groups that are bounded in rows and in bytes.

use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use super::{Encoder, Error};
use crate::domain::export::{Cell, CellType, ExportRow, ExportSubject};

/// Rows of a row group: enough for columns to compress well.
const GROUP_ROWS: usize = 20_000;
/// Bytes of a row group's cells, about: it is written whole, so this is what an export holds in memory.
const GROUP_BYTES: usize = 8 << 20;

/// A file whose bytes are taken away as they are made. Its footer, a few hundred bytes a row group, grows until the end.
pub(super) struct Parquet {
    columns: &'static [(&'static str, CellType)],
    writer: SerializedFileWriter<Vec<u8>>,
    rows: Vec<ExportRow>,
    bytes: usize,
}

impl Parquet {
    pub(super) fn new(subject: ExportSubject) -> Result<Self, ParquetError> {
        let columns = subject.columns();
        let fields = columns.iter().map(|column| field(column).map(Arc::new)).collect::<Result<_, _>>()?;
        let schema = Type::group_type_builder(subject.as_str()).with_fields(fields).build()?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("runlane ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true);
        for (name, _) in columns.iter().filter(|(_, kind)| *kind == CellType::Json) {
            // Nobody looks for a range of these, and they are long.
            properties = properties.set_column_statistics_enabled((*name).into(), EnabledStatistics::None);
        }
        let writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties.build()))?;
        Ok(Self { columns, writer, rows: Vec::new(), bytes: 0 })
    }

    fn write_group(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let mut group = self.writer.next_row_group()?;
        for at in 0..self.columns.len() {
            let mut column = group
                .next_column()?
                .ok_or_else(|| ParquetError::General("the schema has fewer columns than a row".to_owned()))?;
            write_column(&mut column, self.columns[at].1, rows.iter().map(|row| &row[at]))?;
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// Moves what was written out of the writer.
    fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.writer.flush()?;
        out.append(self.writer.inner_mut());
        Ok(())
    }
}

impl Encoder for Parquet {
    fn write(&mut self, rows: Vec<ExportRow>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.bytes += rows.iter().flatten().map(Cell::size).sum::<usize>();
        self.rows.extend(rows);
        if self.rows.len() >= GROUP_ROWS || self.bytes >= GROUP_BYTES {
            self.write_group()?;
            self.drain(out)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if !self.rows.is_empty() {
            self.write_group()?;
        }
        self.writer.finish()?;
        self.drain(out)
    }
}

fn field(&(name, kind): &(&str, CellType)) -> Result<Type, ParquetError> {
    let (physical, logical) = match kind {
        CellType::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        CellType::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
        CellType::Integer => (Physical::INT64, None),
        CellType::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
    };
    Type::primitive_type_builder(name, physical)
        .with_repetition(Repetition::OPTIONAL)
        .with_logical_type(logical)
        .build()
}

/// A column's values that are there, and for every row whether one is.
fn write_column<'a>(
    column: &mut SerializedColumnWriter<'_>,
    kind: CellType,
    cells: impl Iterator<Item = &'a Cell>,
) -> Result<(), ParquetError> {
    let mut present = Vec::new();
    match kind {
        CellType::Text | CellType::Json => {
            let mut values: Vec<ByteArray> = Vec::new();
            for cell in cells {
                let text = match cell {
                    Cell::Text(text) | Cell::Json(text) => text.as_deref(),
                    Cell::Integer(_) | Cell::Time(_) => return Err(mismatch()),
                };
                present.push(i16::from(text.is_some()));
                values.extend(text.map(ByteArray::from));
            }
            column.typed::<ByteArrayType>().write_batch(&values, Some(&present), None)?;
        }
        CellType::Integer | CellType::Time => {
            let mut values: Vec<i64> = Vec::new();
            for cell in cells {
                let number = match cell {
                    Cell::Integer(number) => *number,
                    Cell::Time(time) => time.map(|time| time.timestamp_micros()),
                    Cell::Text(_) | Cell::Json(_) => return Err(mismatch()),
                };
                present.push(i16::from(number.is_some()));
                values.extend(number);
            }
            column.typed::<Int64Type>().write_batch(&values, Some(&present), None)?;
        }
    }
    Ok(())
}

fn mismatch() -> ParquetError {
    ParquetError::General("a cell is not of its column's type".to_owned())
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;

    fn row(id: usize, text: &str) -> ExportRow {
        ExportSubject::Scores
            .columns()
            .iter()
            .map(|(name, kind)| match kind {
                CellType::Text if *name == "jobId" => Cell::Text(Some(id.to_string())),
                CellType::Text if *name == "scenarioKey" => Cell::Text(Some(text.to_owned())),
                CellType::Text => Cell::Text(None),
                CellType::Json => Cell::Json(Some("{}".to_owned())),
                CellType::Integer => Cell::Integer(id.is_multiple_of(2).then_some(5)),
                CellType::Time => Cell::Time(None),
            })
            .collect()
    }

    fn read(bytes: Vec<u8>) -> SerializedFileReader<bytes::Bytes> {
        SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap()
    }

    #[test]
    fn row_groups_are_bounded_in_rows_and_leave_as_they_are_made() {
        let mut parquet = Parquet::new(ExportSubject::Scores).unwrap();
        let mut out = Vec::new();
        let mut pieces = 0;
        for page in 0..9 {
            let before = out.len();
            parquet.write((0..5_000).map(|i| row(page * 5_000 + i, "s")).collect(), &mut out).unwrap();
            pieces += usize::from(out.len() > before);
        }
        assert_eq!(pieces, 2);
        parquet.finish(&mut out).unwrap();
        let file = read(out);
        assert_eq!(file.metadata().file_metadata().num_rows(), 45_000);
        let groups = file.metadata().row_groups().iter().map(|g| g.num_rows()).collect::<Vec<_>>();
        assert_eq!(groups, [20_000, 20_000, 5_000]);
        for (i, row) in file.get_row_iter(None).unwrap().enumerate() {
            let row = row.unwrap();
            assert_eq!(row.get_string(0).unwrap(), &i.to_string());
            assert_eq!(row.get_long(6).ok(), i.is_multiple_of(2).then_some(5));
        }
    }

    #[test]
    fn long_rows_end_a_row_group_early() {
        let mut parquet = Parquet::new(ExportSubject::Scores).unwrap();
        let mut out = Vec::new();
        parquet.write(vec![row(0, &"x".repeat(GROUP_BYTES))], &mut out).unwrap();
        assert!(!out.is_empty() && parquet.rows.is_empty());
    }

    #[test]
    fn a_file_without_rows_can_be_read_and_says_its_types() {
        let mut out = Vec::new();
        Parquet::new(ExportSubject::Transcripts).unwrap().finish(&mut out).unwrap();
        let file = read(out);
        let about = file.metadata().file_metadata();
        assert_eq!(about.num_rows(), 0);
        let types = about.schema_descr().columns().iter().map(|c| c.logical_type_ref().cloned());
        let expected = ExportSubject::Transcripts.columns().iter().map(|(_, kind)| match kind {
            CellType::Text => Some(LogicalType::String),
            CellType::Json => Some(LogicalType::Json),
            CellType::Integer => None,
            CellType::Time => Some(LogicalType::timestamp(true, TimeUnit::MICROS)),
        });
        assert!(types.eq(expected));
    }
}
