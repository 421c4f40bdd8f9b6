//! Topics that are recreated while a session resumes, and positions of another log.

use super::*;

#[test]
fn a_cursor_in_a_topic_that_was_recreated_goes_on_with_the_new_one_and_old_answers_are_ignored() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[30, 40])], &[0, 1], 90);
    let asked = next(&mut resume).expect("a pull");
    answer(&mut resume, &asked, asked.from, PullContinuation::Older(80));
    let stood = resume.reset(at(asked.number), 0);
    assert_eq!(stood, [("A.trade".into(), asked.from)]);
    assert!(resume.answered(asked.id, &empty(asked.from)).is_none());
    assert!(resume.reset(at(3), 0).is_empty());
    let mut pulled = Vec::new();
    for _ in 0..2 {
        let (asked, _) = step(&mut resume, 100, PullContinuation::Live);
        assert_eq!(asked.until, None, "what was known of the old log's history is forgotten");
        pulled.push((asked.number, asked.from));
    }
    pulled.sort_unstable();
    let other = if asked.number == 0 { (1, 40) } else { (0, 30) };
    let mut expected = [(asked.number, 0), other];
    expected.sort_unstable();
    assert_eq!(pulled, expected);
}

#[test]
fn a_topic_that_is_recreated_before_the_acknowledgement_is_brought_from_its_beginning() {
    let mut resume = resume();
    add(&mut resume, 1, vec![since("A.trade", &[30])]);
    (0..SHARDS).for_each(|owner| resume.take_start_reply(1, owner, &[at(0)]));
    assert!(resume.reset(at(0), 0).is_empty(), "nothing stood there");
    acknowledge(&mut resume, 1, 0, &[]);
    assert_eq!(step(&mut resume, 5, PullContinuation::Live).0.from, 0);
}

#[test]
fn of_a_place_in_another_log_the_client_is_told_and_it_alone_begins_again() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[90]), since("B.trade", &[3])], &[0], 10);
    let asked = next(&mut resume).expect("a pull");
    answer(&mut resume, &asked, 10, PullContinuation::Wait);
    resume.begin_again(at(0), 20);
    let Some(Range { name, from, reason, .. }) = resume.next_gap() else { panic!("nothing is told") };
    assert_eq!((&**name, *from, *reason), ("A.trade", 90, GapReason::Reset));
    resume.told_gap();
    assert!(resume.next_gap().is_none());
    let (asked, brought) = step(&mut resume, 12, PullContinuation::Live);
    assert_eq!(asked.from, 0);
    assert_eq!(brought.iter().filter(|(token, _)| *token == 'A').count(), 12, "all of the log");
    assert_eq!(brought.iter().filter(|(token, _)| *token == 'B').count(), 2, "nothing twice");
}

#[test]
fn what_began_again_with_its_log_does_not_do_so_a_second_time_for_a_message_that_joins() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[90])], &[0], 10);
    let asked = next(&mut resume).expect("a pull");
    answer(&mut resume, &asked, 10, PullContinuation::Wait);
    resume.begin_again(at(0), 20);
    resume.told_gap();
    let (asked, _) = step(&mut resume, 12, PullContinuation::More);
    assert_eq!(asked.from, 0);
    begin(&mut resume, 2, vec![live("B.trade")], &[], 15);
    assert_eq!(step(&mut resume, 20, PullContinuation::Live).0.from, 12, "what is below has come");
}

#[test]
fn a_resume_has_all_of_a_log_that_was_made_anew_before_its_owner_answered() {
    let mut resume = resume();
    add(&mut resume, 1, vec![since("A.trade", &[30])]);
    resume.reset(at(0), 0);
    (0..SHARDS).for_each(|owner| resume.take_start_reply(1, owner, &[]));
    acknowledge(&mut resume, 1, 3, &[]);
    assert_eq!(step(&mut resume, 5, PullContinuation::Live).0.from, 0, "the owner had come to 3");
}

#[test]
fn where_history_began_in_an_old_log_is_forgotten_by_a_cursor_that_stood_at_its_beginning() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[0])], &[0], 90);
    step(&mut resume, 0, PullContinuation::Older(80));
    resume.reset(at(0), 0);
    assert_eq!(step(&mut resume, 5, PullContinuation::Live).0.until, None);
}

#[test]
fn of_another_log_only_those_are_told_that_named_a_position_of_it() {
    let mut resume = resume();
    begin(&mut resume, 1, vec![since("A.trade", &[90])], &[0], 10);
    begin(&mut resume, 2, vec![live("B.trade")], &[], 10);
    begin(&mut resume, 3, vec![live("*.trade")], &[], 10);
    let asked = next(&mut resume).expect("a pull");
    answer(&mut resume, &asked, 90, PullContinuation::Wait);
    begin(&mut resume, 4, vec![live("A.*")], &[], 10);
    resume.begin_again(at(0), 20);
    let told: Vec<_> = resume.gaps.iter().map(|range| (&*range.name, range.from)).collect();
    assert_eq!(told, [("A.trade", 90)]);
}
