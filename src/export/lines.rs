//! The formats of lines: JSON Lines and CSV.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use serde::ser::SerializeMap;
use serde_json::value::RawValue;

use super::{Encoder, Error};
use crate::domain::export::{Cell, CellType, ExportRow};

type Columns = &'static [(&'static str, CellType)];

fn instant(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// One object a line.
pub(super) struct Jsonl {
    columns: Columns,
}

impl Jsonl {
    pub(super) const fn new(columns: Columns) -> Self {
        Self { columns }
    }
}

struct Object<'a>(Columns, &'a ExportRow);

impl Serialize for Object<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for ((name, _), cell) in self.0.iter().zip(self.1) {
            match cell {
                Cell::Text(text) => map.serialize_entry(name, text)?,
                Cell::Integer(number) => map.serialize_entry(name, number)?,
                Cell::Time(time) => map.serialize_entry(name, &time.map(instant))?,
                Cell::Json(json) => {
                    let value = json.as_deref().map(serde_json::from_str::<&RawValue>).transpose();
                    map.serialize_entry(name, &value.map_err(serde::ser::Error::custom)?)?;
                }
            }
        }
        map.end()
    }
}

impl Encoder for Jsonl {
    fn write(&mut self, rows: Vec<ExportRow>, out: &mut Vec<u8>) -> Result<(), Error> {
        for row in &rows {
            serde_json::to_writer(&mut *out, &Object(self.columns, row))?;
            out.push(b'\n');
        }
        Ok(())
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> Result<(), Error> {
        Ok(())
    }
}

/// A header, then one record a row; what is null is empty.
pub(super) struct Csv {
    columns: Columns,
    begun: bool,
}

impl Csv {
    pub(super) const fn new(columns: Columns) -> Self {
        Self { columns, begun: false }
    }

    fn begin(&mut self, writer: &mut csv::Writer<&mut Vec<u8>>) -> Result<(), Error> {
        if !std::mem::replace(&mut self.begun, true) {
            writer.write_record(self.columns.iter().map(|(name, _)| name))?;
        }
        Ok(())
    }
}

fn csv_writer(out: &mut Vec<u8>) -> csv::Writer<&mut Vec<u8>> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out)
}

impl Encoder for Csv {
    fn write(&mut self, rows: Vec<ExportRow>, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut writer = csv_writer(out);
        self.begin(&mut writer)?;
        for row in rows {
            for cell in row {
                let text = match cell {
                    Cell::Text(text) | Cell::Json(text) => text,
                    Cell::Integer(number) => number.map(|n| n.to_string()),
                    Cell::Time(time) => time.map(instant),
                };
                writer.write_field(text.unwrap_or_default())?;
            }
            writer.write_record(None::<&[u8]>)?;
        }
        Ok(writer.flush()?)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let mut writer = csv_writer(out);
        self.begin(&mut writer)?;
        Ok(writer.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;
    use crate::domain::export::ExportSubject;

    const COLUMNS: Columns =
        &[("a", CellType::Text), ("b", CellType::Integer), ("c", CellType::Json), ("d", CellType::Time)];

    fn rows() -> Vec<ExportRow> {
        let time = Utc.with_ymd_and_hms(2026, 1, 2, 3, 4, 5).unwrap();
        vec![
            vec![
                Cell::Text(Some("x, \"y\"\nz".into())),
                Cell::Integer(Some(-7)),
                Cell::Json(Some(r#"{"k": [1]}"#.into())),
                Cell::Time(Some(time)),
            ],
            vec![Cell::Text(None), Cell::Integer(None), Cell::Json(None), Cell::Time(None)],
        ]
    }

    #[test]
    fn json_lines_hold_values_as_they_are() {
        let mut out = Vec::new();
        Jsonl::new(COLUMNS).write(rows(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "{\"a\":\"x, \\\"y\\\"\\nz\",\"b\":-7,\"c\":{\"k\": [1]},\"d\":\"2026-01-02T03:04:05.000000Z\"}\n\
             {\"a\":null,\"b\":null,\"c\":null,\"d\":null}\n"
        );
    }

    #[test]
    fn csv_has_its_header_once_and_quotes_what_needs_it() {
        let mut csv = Csv::new(COLUMNS);
        let mut out = Vec::new();
        csv.write(rows(), &mut out).unwrap();
        csv.write(rows().split_off(1), &mut out).unwrap();
        csv.finish(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "a,b,c,d\r\n\"x, \"\"y\"\"\nz\",-7,\"{\"\"k\"\": [1]}\",2026-01-02T03:04:05.000000Z\r\n,,,\r\n,,,\r\n"
        );
    }

    #[test]
    fn csv_without_rows_is_its_header() {
        let mut out = Vec::new();
        Csv::new(ExportSubject::Scores.columns()).finish(&mut out).unwrap();
        assert!(out.starts_with(b"jobId,scenarioKey,") && out.ends_with(b",finishedAt\r\n"));
    }
}
