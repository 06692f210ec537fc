//! Worker protocol v1: one message out of the bytes of one line, and the lines that the node writes.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::payload::ResultBody;

/// The version that this node speaks.
const VERSION: u64 = 1;

/// A message of a worker. Bodies are left unread: what is wrong with one concerns one job only.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// A warm worker is ready.
    Hello,
    /// How far a job is.
    Progress,
    /// A job is worked on.
    Heartbeat { job_id: Option<Cow<'a, str>> },
    /// The end of a job.
    Terminal { job_id: Cow<'a, str>, body: Body<'a> },
}

/// What a terminal event says.
#[derive(Debug)]
pub(super) enum Body<'a> {
    Result(ResultBody<'a>),
    Error { error: Option<&'a RawValue>, usage: Option<&'a RawValue>, cost_usd: Option<&'a RawValue> },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    v: u64,
    #[serde(rename = "type", borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    job_id: Option<Text<'a>>,
    #[serde(borrow)]
    transcript: Option<&'a RawValue>,
    #[serde(borrow)]
    analysis: Option<&'a RawValue>,
    #[serde(default)]
    unchanged: bool,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    cost_usd: Option<&'a RawValue>,
}

/// Borrows where the text has no escapes, also inside an `Option`.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads one line or, of a one-shot worker, one value.
///
/// # Errors
/// What is wrong with it, for people: the worker does not speak the protocol.
pub(super) fn parse(text: &str) -> Result<Event<'_>, String> {
    let envelope: Envelope<'_> = serde_json::from_str(text)
        .map_err(|e| format!("its stdout holds what is no message ({e}): {}", excerpt(text)))?;
    if envelope.v != VERSION {
        return Err(format!("it speaks protocol version {}, this node speaks {VERSION}", envelope.v));
    }
    let body = match envelope.kind.0.as_ref() {
        "hello" => return Ok(Event::Hello),
        "progress" => return Ok(Event::Progress),
        "heartbeat" => return Ok(Event::Heartbeat { job_id: envelope.job_id.map(|id| id.0) }),
        "result" => Body::Result(ResultBody {
            transcript: envelope.transcript,
            analysis: envelope.analysis,
            unchanged: envelope.unchanged,
        }),
        "error" => Body::Error { error: envelope.error, usage: envelope.usage, cost_usd: envelope.cost_usd },
        other => return Err(format!("it sent a message of the unknown type {:?}", excerpt(other))),
    };
    let Some(Text(job_id)) = envelope.job_id else {
        return Err(format!("its {} has no `jobId`: {}", envelope.kind.0, excerpt(text)));
    };
    Ok(Event::Terminal { job_id, body })
}

/// The beginning of what was written instead, harmless to show.
pub(super) fn excerpt(text: &str) -> String {
    const CHARS: usize = 80;
    let mut short: String = text.chars().take(CHARS).collect::<String>().escape_debug().collect();
    if text.chars().nth(CHARS).is_some() {
        short.push('…');
    }
    short
}

/// Appends a `job` message as one line. Newlines can only be white space between the tokens of a JSON text.
pub(super) fn push_job(out: &mut Vec<u8>, request: &[u8]) {
    let start = out.len();
    out.extend_from_slice(request);
    for byte in &mut out[start..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.push(b'\n');
}

/// Appends a `cancel` message; one for a job that is overdue says so.
pub(super) fn push_cancel(out: &mut Vec<u8>, job_id: &str, overdue: bool) {
    let mut line = serde_json::json!({ "v": VERSION, "type": "cancel", "jobId": job_id });
    if overdue {
        line["reason"] = "deadline".into();
    }
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

/// Appends a `shutdown` message.
pub(super) fn push_shutdown(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"v\":1,\"type\":\"shutdown\"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_message_is_an_error() {
        for text in [
            "",
            "{",
            "[]",
            "3",
            "Traceback (most recent call last):",
            r#"{"type":"hello"}"#,
            r#"{"v":2,"type":"hello"}"#,
            r#"{"v":1,"type":"greeting"}"#,
            r#"{"v":1,"type":"result","transcript":{}}"#,
            r#"{"v":1,"type":"result","jobId":7}"#,
            r#"{"v":1,"type":"hello"} {"v":1,"type":"hello"}"#,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn known_messages_are_read_with_fields_yet_unknown() {
        assert!(matches!(parse(r#"{"v":1,"type":"hello","pid":1,"worker":"w","new":[]}"#), Ok(Event::Hello)));
        assert!(matches!(parse(r#"{"v":1,"type":"heartbeat","jobId":"1"}"#), Ok(Event::Heartbeat { .. })));
        let Ok(Event::Terminal { job_id, body: Body::Error { error: Some(error), .. } }) =
            parse(r#"{"error":{"code":1},"jobId":"é\n","type":"error","v":1}"#)
        else {
            panic!()
        };
        assert_eq!((job_id.as_ref(), error.get()), ("é\n", r#"{"code":1}"#));
    }

    #[test]
    fn a_request_becomes_one_line() {
        let mut out = Vec::new();
        push_job(&mut out, b"{\n \"a\":\r\n \"b\\nc\" }");
        push_cancel(&mut out, "x\n\"y", false);
        push_cancel(&mut out, "z", true);
        push_shutdown(&mut out);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines[0]["a"], "b\nc");
        assert_eq!((&lines[1]["jobId"], &lines[1]["reason"]), (&"x\n\"y".into(), &serde_json::Value::Null));
        assert_eq!((&lines[2]["jobId"], &lines[2]["reason"]), (&"z".into(), &"deadline".into()));
        assert_eq!(lines[3]["type"], "shutdown");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
