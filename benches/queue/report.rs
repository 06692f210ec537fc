//! Figures, medians, percentiles, and the goals they are held against.

use std::time::Duration;

use crate::cpu;

/// What was promised and what was measured. The numbers of the goals are those of docs/performance.md; several figures may
/// belong to one.
#[derive(Default)]
pub struct Report {
    goals: Vec<(u8, String)>,
}

impl Report {
    /// Holds a time against the goal that it is no longer than this.
    pub fn goal_within(&mut self, number: u8, what: &str, figure: Duration, limit: Duration) {
        self.goal(number, &format!("{what} {} ≤{}", ms(figure), ms(limit)), figure <= limit);
    }

    /// Holds a size against the goal that it is no larger than this.
    pub fn goal_bytes_within(&mut self, number: u8, what: &str, figure: f64, limit: f64) {
        self.goal(number, &format!("{what} {figure:.0} bytes ≤{limit:.0} bytes"), figure <= limit);
    }

    /// Holds a share of a whole against the goal that it is no less than this.
    pub fn goal_share_from(&mut self, number: u8, what: &str, figure: f64, least: f64) {
        let (shown, bound) = (figure * 100.0, least * 100.0);
        self.goal(number, &format!("{what} {shown:.1} % ≥{bound:.0} %"), figure >= least);
    }

    /// Holds a share of a whole against the goal that it is no larger than this.
    pub fn goal_share_within(&mut self, number: u8, what: &str, figure: f64, limit: f64) {
        let (shown, bound) = (figure * 100.0, limit * 100.0);
        self.goal(number, &format!("{what} {shown:.2} % ≤{bound} %"), figure <= limit);
    }

    /// Holds a number of things a second against the goal that it is no less than this.
    pub fn goal_rate_from(&mut self, number: u8, what: &str, figure: f64, least: f64) {
        self.goal(number, &format!("{what} {figure:.0}/s ≥{least:.0}/s"), figure >= least);
    }

    /// Holds a number of things a second against the goal that it is no more than this.
    pub fn goal_rate_within(&mut self, number: u8, what: &str, figure: f64, limit: f64) {
        self.goal(number, &format!("{what} {figure:.2}/s ≤{limit:.2}/s"), figure <= limit);
    }

    /// Holds a number of things a second against the goal that it is at least so many times another one of the same run.
    pub fn goal_times_from(&mut self, number: u8, what: &str, figure: f64, of: (&str, f64), least: f64) {
        let (name, other) = of;
        let times = figure / other;
        self.goal(number, &format!("{what} {figure:.0}/s {times:.2} × {name} ≥{least} ×"), times >= least);
    }

    /// Holds a time against the goal that it is at most so many times another one of the same run.
    pub fn goal_times_within(
        &mut self,
        number: u8,
        what: &str,
        figure: Duration,
        of: (&str, Duration),
        most: f64,
    ) {
        let (name, other) = of;
        let times = figure.as_secs_f64() / other.as_secs_f64();
        self.goal(number, &format!("{what} {} {times:.2} × {name} ≤{most} ×", ms(figure)), times <= most);
    }

    fn goal(&mut self, number: u8, text: &str, is_met: bool) {
        let verdict = if is_met { "met" } else { "short" };
        self.goals.push((number, format!("{text} {verdict}")));
    }

    /// One line a figure, in the order of the goals.
    pub fn print_goals(&mut self) {
        println!();
        self.goals.sort_by_key(|&(number, _)| number);
        for (number, text) in &self.goals {
            println!("goal {number}: {text}");
        }
    }
}

/// Prints the heading of a phase.
pub fn heading(text: &str) {
    println!("\n== {text}");
    figure("processor pressure before (others' work lengthens every time)", &cpu::pressure());
}

/// Prints one figure.
pub fn figure(what: &str, value: &str) {
    println!("{what:<64} {value}");
}

/// Milliseconds with as many decimals as mean something.
pub fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    let decimals = if ms < 10.0 {
        2
    } else if ms < 100.0 {
        1
    } else {
        0
    };
    format!("{ms:.decimals$} ms")
}

/// So many in that time, a second.
pub fn rate(n: f64, time: Duration) -> f64 {
    n / time.as_secs_f64()
}

/// The value in the middle; of an even number the lower one.
pub fn median<T: Copy + PartialOrd>(values: &[T]) -> T {
    quantile(values, 0.5)
}

/// The smallest value that at least this share of the values does not exceed.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank within a slice in memory"
)]
pub fn quantile<T: Copy + PartialOrd>(values: &[T], share: f64) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("figures are numbers"));
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The percentiles of latencies in one line.
pub fn percentiles(times: &[Duration]) -> String {
    format!(
        "p50 {}  p95 {}  p99 {}  max {}  (n {})",
        ms(quantile(times, 0.50)),
        ms(quantile(times, 0.95)),
        ms(quantile(times, 0.99)),
        ms(quantile(times, 1.0)),
        times.len()
    )
}
