//! What the checks of results and errors let through.

use super::*;

const TRANSCRIPT: &str = r#"{"turns":[{"n":1,"label":null,"prompt":"p","response":"r\n","finishReason":"stop",
    "usage":{"input":1,"output":2},"latencyMs":3,"extra":{"kept":true}}],"usage":{"input":1,"output":2,"reasoning":null,"cacheRead":0},
    "modelVersion":"m-1","score":4,"costUsd":"0.000150","startedAt":"2026-01-01T00:00:00Z",
    "completedAt":"2026-01-01T00:00:01.5Z"}"#;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn transcript(text: &str) -> Result<Payload, String> {
    let transcript = raw(text);
    let body = ResultBody { transcript: Some(&transcript), ..ResultBody::default() };
    result(JobKind::ProbeScenario, false, body)
}

#[test]
fn a_transcript_is_read_and_kept_as_written() {
    let Ok(Payload::Transcript(t)) = transcript(TRANSCRIPT) else { panic!() };
    assert_eq!((t.turn_count, t.score, t.usage.output), (1, Some(4), Some(2)));
    assert_eq!(t.cost_usd.unwrap().to_string(), "0.000150");
    assert!(t.turns.get().contains("\"extra\":{\"kept\":true}"));
    assert_eq!((t.latency_ms, t.bytes), (3, TRANSCRIPT.len()));
    assert!(t.raw_usage.unwrap().get().contains("\"reasoning\":null"));
}

#[test]
fn a_transcript_of_a_wrong_shape_is_named() {
    for (from, to, named) in [
        (r#""n":1"#, r#""n":"one""#, "turns"),
        (r#""response":"r\n""#, r#""response":7"#, "turns"),
        (r#""response":"r\n""#, r#""response":"\ud800""#, "turns"),
        (r#""kept":true"#, r#""kept":1e999"#, "turns"),
        (r#""latencyMs":3"#, r#""latencyMs":-3"#, "latencyMs"),
        (r#""reasoning":null"#, r#""reasoning":-1"#, "usage"),
        (r#""costUsd":"0.000150""#, r#""costUsd":"-1""#, "costUsd"),
        (r#""costUsd":"0.000150""#, r#""costUsd":"cheap""#, "costUsd"),
        (r#""score":4"#, r#""score":"4""#, "transcript"),
        ("2026-01-01T00:00:00Z", "yesterday", "transcript"),
    ] {
        let broken = TRANSCRIPT.replacen(from, to, 1);
        assert_ne!(broken, TRANSCRIPT);
        let error = transcript(&broken).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn small_costs_may_be_written_with_an_exponent() {
    assert_eq!(money("costUsd", "1E-7").unwrap().to_string(), "0.0000001");
}

#[test]
fn a_result_must_be_of_the_jobs_kind() {
    let analysis = raw(r#"{"coverage":{"expected":3,"used":2,"failed":1},"warnings":[],"methods":{},"n":1}"#);
    fn of(
        kind: JobKind,
        transcript: Option<&RawValue>,
        analysis: Option<&RawValue>,
    ) -> Result<Payload, String> {
        result(kind, true, ResultBody { transcript, analysis, unchanged: false })
    }
    let Ok(Payload::Analysis(a)) = of(JobKind::AnalyzeBasic, None, Some(&analysis)) else { panic!() };
    assert_eq!(a.coverage, Coverage { expected: 3, used: 2, failed: 1 });
    assert!(of(JobKind::ProbeScenario, None, Some(&analysis)).is_err());
    assert!(of(JobKind::AnalyzeDeep, Some(&raw(TRANSCRIPT)), None).is_err());
    assert!(of(JobKind::AnalyzeDeep, None, Some(&raw(r#"{"coverage":{}}"#))).is_err());
    assert!(of(JobKind::ProbeScenario, None, None).is_err());
}

#[test]
fn only_an_analysis_that_was_told_what_there_was_before_is_unchanged() {
    let unchanged = ResultBody { unchanged: true, ..ResultBody::default() };
    assert!(matches!(result(JobKind::AnalyzeBasic, true, unchanged), Ok(Payload::Unchanged(_))));
    assert!(result(JobKind::AnalyzeBasic, false, unchanged).is_err());
    assert!(result(JobKind::ProbeScenario, true, unchanged).is_err());
}

fn error_of(text: &str) -> Result<ErrorBody, String> {
    error(Some(text), None, None)
}

#[test]
fn a_code_that_no_worker_may_report_is_unknown_and_told() {
    for code in ["worker_crash", "node_lost", "cancelled", "no_such_code"] {
        let body = error_of(&format!(r#"{{"code":"{code}","message":"m","retryable":false}}"#)).unwrap();
        assert_eq!(body.error.code, ErrorCode::Unknown);
        assert!(body.error.message.contains(code));
        assert_eq!(body.says_cancelled, code == "cancelled");
    }
}

#[test]
fn an_errors_fields_are_read_and_bounded() {
    let text = format!(
        r#"{{"code":"rate_limit","message":"{}\u0000","retryAfterMs":1500,"httpStatus":429,"detail":{{"a":1}}}}"#,
        "x".repeat(MESSAGE_MAX_CHARS - 1)
    );
    let error = error_of(&text).unwrap().error;
    assert_eq!(error.retry_after, Some(Duration::from_millis(1500)));
    assert_eq!((error.http_status, error.retryable), (Some(429), true));
    assert_eq!(error.message.chars().count(), MESSAGE_MAX_CHARS);
    assert!(!error.message.contains('\0'));
    assert!(error_of(r#"{"code":"rate_limit","message":"m","retryAfterMs":-1}"#).is_err());
    assert!(error_of(r#"{"code":"network"}"#).is_err());
}

#[test]
fn what_a_failed_attempt_cost_is_read_and_checked() {
    let usage = raw(r#"{"input":5}"#);
    let spent_on = |cost: &str| spent(Some(&usage), Some(&raw(cost)));
    let paid = spent_on("\"0.0125\"").unwrap();
    assert_eq!(paid.cost_usd.unwrap().to_string(), "0.0125");
    assert_eq!(paid.usage.unwrap().get(), usage.get());
    assert_eq!(spent_on("null").unwrap().cost_usd, None);
    assert_eq!(spent(None, None).unwrap().cost_usd, None);
    for wrong in ["\"-1\"", "\"cheap\"", "0.5", "[]"] {
        let problem = spent_on(wrong).unwrap_err();
        assert!(problem.starts_with("`costUsd` is "), "{problem}");
    }
}
