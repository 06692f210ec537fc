use super::*;

#[test]
fn nothing_to_do_is_complete() {
    assert_eq!(Counts::default().percent_complete(), 100.0);
    let half = Counts { total: 8, pending: 4, completed: 2, failed: 1, cancelled: 1, active: 0 };
    assert_eq!(half.percent_complete(), 50.0);
}

#[test]
fn the_pace_is_that_of_the_latest_and_unknown_before_the_first() {
    assert_eq!(Pace { finished: 4, seconds: 2.0 }.seconds_for(7), Some(4));
    assert_eq!(Pace { finished: 0, seconds: 2.0 }.seconds_for(7), None);
}
