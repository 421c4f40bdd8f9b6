//! Durations of resumes: from a session's subscribe to its first event, and to `resumed`.
//!
//! A session resumes one channel at a time. Times are those of the ledger's clock, accurate to a millisecond.

use std::ops::Range;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// One resume of a session.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    asked_at: Instant,
    /// From the subscribe to the first event.
    pub first_event_in: Option<Duration>,
    /// From the subscribe to `resumed`.
    pub resumed_in: Option<Duration>,
    /// Number of events that `resumed` reported.
    pub replayed: u64,
}

/// The latest resume of each session.
#[derive(Debug, Default)]
pub struct Resumes {
    by_session: HashMap<usize, Resume>,
    /// Number of resumes without an event so far: if it is zero, events cost no lookup.
    without_event: usize,
    without_end: usize,
}

impl Resumes {
    /// The session sends its subscribe.
    pub fn on_asked(&mut self, session: usize, now: Instant) {
        self.forget(session);
        let resume = Resume { asked_at: now, first_event_in: None, resumed_in: None, replayed: 0 };
        self.by_session.insert(session, resume);
        self.without_event += 1;
        self.without_end += 1;
    }

    /// An event arrived for any session.
    pub fn on_event(&mut self, session: usize, now: Instant) {
        if self.without_event == 0 {
            return;
        }
        if let Some(resume) = self.by_session.get_mut(&session).filter(|it| it.first_event_in.is_none()) {
            resume.first_event_in = Some(now - resume.asked_at);
            self.without_event -= 1;
        }
    }

    /// The server reported that the session has received all missed events.
    pub fn on_resumed(&mut self, session: usize, replayed: u64, now: Instant) {
        if let Some(resume) = self.by_session.get_mut(&session).filter(|it| it.resumed_in.is_none()) {
            (resume.resumed_in, resume.replayed) = (Some(now - resume.asked_at), replayed);
            self.without_end -= 1;
        }
    }

    /// The session does not resume.
    pub fn forget(&mut self, session: usize) {
        if let Some(resume) = self.by_session.remove(&session) {
            self.without_event -= usize::from(resume.first_event_in.is_none());
            self.without_end -= usize::from(resume.resumed_in.is_none());
        }
    }

    /// The session ended: its pending resume will not complete.
    pub fn on_end(&mut self, session: usize) {
        if self.by_session.get(&session).is_some_and(|resume| resume.resumed_in.is_none()) {
            self.forget(session);
        }
    }

    /// Number of sessions that have subscribed and have not received `resumed`.
    pub fn under_way(&self) -> usize {
        self.without_end
    }

    /// The resumes of these sessions, in no particular order.
    pub fn of(&self, sessions: Range<usize>) -> impl Iterator<Item = &Resume> {
        self.by_session
            .iter()
            .filter(move |(session, _)| sessions.contains(session))
            .map(|(_, resume)| resume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_run_from_the_subscribe_to_the_first_event_and_to_the_end() {
        let (mut resumes, began) = (Resumes::default(), Instant::now());
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        resumes.on_asked(7, at(0));
        resumes.on_asked(8, at(1));
        resumes.on_event(3, at(1));
        resumes.on_event(7, at(2));
        resumes.on_event(7, at(3));
        resumes.on_resumed(7, 2, at(5));
        assert_eq!(resumes.under_way(), 1);
        let [done] = resumes.of(0..9).filter(|it| it.resumed_in.is_some()).collect::<Vec<_>>()[..] else {
            panic!("one has ended")
        };
        assert_eq!(done.first_event_in.map(|first| first.as_millis()), Some(2));
        assert_eq!((done.resumed_in.map(|all| all.as_millis()), done.replayed), (Some(5), 2));
        resumes.forget(8);
        assert_eq!((resumes.under_way(), resumes.of(8..9).count()), (0, 0));
        // The session reconnects once more and is disconnected.
        resumes.on_end(7);
        assert_eq!(resumes.of(7..9).count(), 1, "it had all");
        resumes.on_asked(7, at(9));
        assert_eq!((resumes.under_way(), resumes.of(7..9).count()), (1, 1));
        resumes.on_end(7);
        assert_eq!((resumes.under_way(), resumes.of(7..9).count()), (0, 0));
    }
}
