//! The answers that a test requests from the fake.

use std::collections::VecDeque;

use crate::kernel::Tag;
use crate::wake::Waker;

/// What to do with the next enter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Enter {
    /// Takes nothing.
    Fails(i32),
    /// Takes at most this many requests.
    Takes(usize),
}

/// How the next send ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Send {
    Takes(usize),
    Fails(i32),
    /// In full, but not inside the submit: only a wait brings the completion.
    Later,
}

/// How the next cancel of an armed request ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cancel {
    /// The cancelled request's completion first, then the cancel's.
    TargetFirst,
    TargetLast,
    /// The request has just received bytes: its last completion carries them, and the cancel finds nothing.
    TooLate,
    /// The kernel is executing the request: the cancel finds nothing, and the request is armed again.
    Missed,
}

/// An event that ends the next sleep before its timeout.
#[derive(Debug)]
pub(crate) enum Sleep {
    /// Another thread.
    Woken(Waker),
    Signal,
    /// An armed request ends with this result.
    Completes(Tag, i32),
}

/// The fake's next answers; without a script everything succeeds at once.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) enters: VecDeque<Enter>,
    pub(crate) sends: VecDeque<Send>,
    pub(crate) cancels: VecDeque<Cancel>,
    pub(crate) connects: VecDeque<i32>,
    pub(crate) sleeps: VecDeque<Sleep>,
    pub(crate) shutdown_fails: bool,
}
