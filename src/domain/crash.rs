//! What a crash looks like, so that crashes of one origin are known as one.

use std::fmt;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

/// How the process ended, or what the node ended it for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A signal that nobody of the node's sent: its name, or its number where it has none.
    Signal(String),
    /// It exited with this code.
    Exit(i32),
    /// The node ended it, or refused what it wrote, for this reason.
    Node(&'static str),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(name) => f.write_str(name),
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Node(reason) => f.write_str(reason),
        }
    }
}

/// A hold of a lane: none of its jobs starts until somebody releases it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneHold {
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why, for people.
    pub reason: String,
}

/// Frames that count: the innermost say where it happened.
const FRAMES_MAX: usize = 5;
/// Lines that count where there are no frames.
const LINES_MAX: usize = 3;
/// Characters of a line that count.
const LINE_MAX_CHARS: usize = 120;
/// Characters of the readable part.
const TEXT_MAX_CHARS: usize = 200;
/// Bytes of the digest that are kept: plenty to tell the crashes of one queue apart.
const HASH_BYTES: usize = 8;

/// The mark of a crash: the same for crashes that ended the same way, in the same frames, with the same model.
///
/// Written as 16 hexadecimal digits, a space, and a few words for people. Left out is what differs between two crashes
/// of one origin: numbers, addresses, identifiers, folders, and the text of the exception's message. The model counts
/// without its query string: variants of one model crash for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a process that ended by `cause` and wrote `stderr` last.
    #[must_use]
    pub fn of(cause: &Cause, stderr: &str, model: Option<&str>) -> Self {
        let cause = cause.to_string();
        let frames = frames(stderr);
        let model = model.map_or("no model", |m| m.split('?').next().unwrap_or(m));
        let mut digest = Sha256::new();
        for part in [cause.as_str(), model].into_iter().chain(frames.iter().map(String::as_str)) {
            digest.update(part.as_bytes());
            // A byte that is in no text, so that parts cannot run into each other.
            digest.update([0xff]);
        }
        let hash: String = digest.finalize()[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut words = format!("{cause}, {model}");
        if let Some(last) = frames.last() {
            words = format!("{words}: {last}");
        }
        let words: String = words.chars().take(TEXT_MAX_CHARS).collect();
        Self(format!("{hash} {words}"))
    }

    /// The digest and the words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digest alone.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.0[..HASH_BYTES * 2]
    }
}

/// What of stderr tells one origin from another, outermost first.
fn frames(stderr: &str) -> Vec<String> {
    let lines: Vec<&str> = stderr.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let is_frame = |line: &&str| line.trim_start().starts_with("File \"");
    // The interpreter's own report of a fatal signal has the innermost frame first.
    if let Some(start) = lines.iter().rposition(|line| line.contains("most recent call first")) {
        let mut found: Vec<String> =
            lines[start..].iter().filter(|l| is_frame(l)).take(FRAMES_MAX).map(|l| frame(l)).collect();
        found.reverse();
        return found;
    }
    if let Some(last) = lines.iter().rposition(is_frame) {
        let mut found: Vec<String> =
            lines[..=last].iter().rev().filter(|l| is_frame(l)).take(FRAMES_MAX).map(|l| frame(l)).collect();
        found.reverse();
        // Lines of source are indented; the exception that follows them is not.
        if let Some(raised) = lines[last + 1..].iter().find(|line| !line.starts_with(' ')) {
            found.push(exception(raised));
        }
        return found;
    }
    lines[lines.len().saturating_sub(LINES_MAX)..].iter().map(|line| plain(line)).collect()
}

/// `File "/a/b/probe.py", line 3, in call` as `probe.py in call`.
fn frame(line: &str) -> String {
    let (path, rest) = line.trim_start().trim_start_matches("File \"").split_once('"').unwrap_or((line, ""));
    let function = rest.rsplit_once(" in ").map_or("", |(_, function)| function);
    plain(&format!("{path} in {function}"))
}

/// The type of an exception: its message holds the data of one job.
fn exception(line: &str) -> String {
    let name = line.split(':').next().unwrap_or(line);
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_'));
    if is_name { name.to_owned() } else { plain(line) }
}

/// The line without what differs from crash to crash.
fn plain(line: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '~');
    let mut text = String::new();
    let mut word = String::new();
    for c in line.trim().chars().chain([' ']) {
        if is_part(c) {
            word.push(c);
        } else {
            text.push_str(&without_data(&word));
            word.clear();
            text.push(c);
        }
    }
    text.trim_end().chars().take(LINE_MAX_CHARS).collect()
}

/// A path as its last part, an identifier or an address as `#`, and any other number as `#`.
fn without_data(word: &str) -> String {
    let last = word.trim_end_matches('/').rsplit('/').next().unwrap_or(word);
    if word.contains('/') && last.starts_with("tmp") {
        return "#".to_owned();
    }
    let mut text = String::new();
    for piece in last.split_inclusive(|c: char| !c.is_alphanumeric()) {
        let core = piece.trim_end_matches(|c: char| !c.is_alphanumeric());
        let is_id = core.len() >= 8 && core.chars().all(|c| c.is_ascii_hexdigit());
        let has_digit = core.chars().any(|c| c.is_ascii_digit());
        if has_digit && (is_id || core.starts_with("0x")) {
            text.push('#');
        } else {
            for c in core.chars() {
                match c {
                    c if !c.is_ascii_digit() => text.push(c),
                    _ if text.ends_with('#') => {}
                    _ => text.push('#'),
                }
            }
        }
        text.push_str(&piece[core.len()..]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segv() -> Cause {
        Cause::Signal("SIGSEGV".to_owned())
    }

    fn traceback(folder: &str, line: u32, message: &str) -> String {
        format!(
            "probe 17 begins\nTraceback (most recent call last):\n  File \"{folder}/main.py\", line {line}, in main\n    run()\n\
             \x20 File \"{folder}/probe.py\", line 9, in call\n    raise KeyError(key)\nKeyError: '{message}'\n"
        )
    }

    #[test]
    fn crashes_of_one_origin_have_one_fingerprint() {
        let one = Fingerprint::of(&Cause::Exit(1), &traceback("/opt/a", 3, "s00017"), Some("mock/rater?x=1"));
        let two =
            Fingerprint::of(&Cause::Exit(1), &traceback("/tmp/tmpab1", 44, "other"), Some("mock/rater"));
        assert_eq!(one, two);
        assert_eq!(one.as_str().split_once(' ').unwrap(), (one.hash(), "exit 1, mock/rater: KeyError"));
        assert!(one.hash().chars().all(|c| c.is_ascii_hexdigit()) && one.hash().len() == 16);
    }

    #[test]
    fn each_part_tells_crashes_apart() {
        let stderr = traceback("/opt", 3, "s");
        let one = Fingerprint::of(&segv(), &stderr, Some("mock/rater"));
        for other in [
            Fingerprint::of(&Cause::Signal("SIGKILL".into()), &stderr, Some("mock/rater")),
            Fingerprint::of(&segv(), &stderr, Some("mock/echo")),
            Fingerprint::of(&segv(), &stderr, None),
            Fingerprint::of(&segv(), &stderr.replace("in call", "in parse"), Some("mock/rater")),
            Fingerprint::of(&segv(), &stderr.replace("KeyError", "ValueError"), Some("mock/rater")),
            Fingerprint::of(&segv(), "", Some("mock/rater")),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_fatal_signals_report_is_read_from_its_innermost_frame() {
        let report = |n: usize| {
            let outer: String = (0..n)
                .map(|i| format!("  File \"/x/outer.py\", line {i}, in f{}\n", "a".repeat(i)))
                .collect();
            format!(
                "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f12 (most recent call first):\n\
                 \x20 File \"/x/native.py\", line 1, in call\n{outer}"
            )
        };
        assert_eq!(frames(&report(9)).len(), FRAMES_MAX);
        assert_eq!(frames(&report(9)).last().unwrap(), "native.py in call");
        assert_eq!(frames(&report(9)), frames(&report(20)));
    }

    #[test]
    fn lines_without_frames_lose_their_data() {
        let stderr = "first\nmalloc(): corrupted at 0x7ffd12ab, size 1234\n\
                      worker 0190f1a2-7c1b-7a2e-9a55-1f0a2b3c4d5e wrote /var/lib/x/data-77.bin to /tmp/tmpq8_1\nAborted";
        assert_eq!(
            frames(stderr),
            ["malloc(): corrupted at #, size #", "worker #-#c#b-#a#e-#a#-# wrote data-#.bin to #", "Aborted"]
        );
        assert!(frames("").is_empty());
        assert_eq!(frames(&"x".repeat(5_000))[0].len(), LINE_MAX_CHARS);
    }
}
