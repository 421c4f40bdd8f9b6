//! Batches of sends: one system call for up to 512 sockets, finished when it returns.
//!
//! With `MSG_DONTWAIT` a send completes inside the submit: in full, short because the socket filled up, or with EAGAIN
//! because it was full. So the bytes can be borrowed, and no send is ever in flight between two calls.

use std::io;

use crate::driver::{Driver, is_transient};
use crate::kernel::{Kernel, Operation, Tag};
use crate::sockets::{SocketId, Stage};

/// Transient failures of one batch's enters in a row after which something is wrong with the machine.
const TRANSIENT_FAILURES_MAX: u32 = 100_000;

/// Bytes for one socket.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Where to. At most once in a batch.
    pub socket: SocketId,
    /// What; at least one byte.
    pub bytes: &'a [u8],
}

/// How one send of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The kernel has all of it.
    Sent,
    /// The socket is full after `accepted` bytes (perhaps none): keep the rest and `wait_writable`.
    Full {
        /// Bytes that the kernel has.
        accepted: usize,
    },
    /// The connection is broken (an errno of send(2)). The socket waits for `abort`.
    Failed(i32),
    /// That socket has closed, or is closing.
    Gone,
}

impl<K: Kernel> Driver<K> {
    /// Sends to many sockets at once and puts each outcome at its place in `outcomes`.
    ///
    /// It ends the process rather than return while the kernel may still read the borrowed bytes; that takes an error
    /// of io_uring_enter(2) that only a broken ring gives.
    pub fn send_batch(&mut self, sends: &[Outgoing<'_>], outcomes: &mut Vec<SendOutcome>) {
        outcomes.clear();
        outcomes.resize(sends.len(), SendOutcome::Gone);
        for (sends, outcomes) in sends.chunks(self.batch).zip(outcomes.chunks_mut(self.batch)) {
            self.make_room(sends.len());
            let outstanding = self.push_sends(sends, outcomes);
            self.finish_sends(outstanding, sends, outcomes);
        }
    }

    #[allow(unsafe_code, reason = "the kernel reads the borrowed bytes until the completion")]
    fn push_sends(&mut self, sends: &[Outgoing<'_>], outcomes: &mut [SendOutcome]) -> usize {
        let mut outstanding = 0;
        for (index, send) in sends.iter().enumerate() {
            let Some(socket) = self.sockets.peek(send.socket) else { continue };
            if socket.stage != Stage::Open {
                continue;
            }
            if send.bytes.is_empty() {
                outcomes[index] = SendOutcome::Sent;
                continue;
            }
            let tag = Tag::new(Operation::Send, 0, index as u32);
            let fd = socket.raw();
            // SAFETY: `finish_sends` does not return before it has taken this request's completion, and `sends`
            // borrows the bytes for longer than that.
            unsafe { self.kernel.push_send(tag, fd, send.bytes) };
            outstanding += 1;
        }
        outstanding
    }

    fn finish_sends(&mut self, mut outstanding: usize, sends: &[Outgoing<'_>], outcomes: &mut [SendOutcome]) {
        let mut failures = 0;
        let mut first = true;
        while outstanding > 0 {
            let unsubmitted = self.kernel.unsubmitted() > 0;
            // The first enter submits and completes all, normally. Whatever is missing afterwards was not submitted
            // (a short count) or, against experience, went on asynchronously: then there is something to wait for.
            let wait = u32::from(!unsubmitted);
            match self.kernel.enter(wait, !first) {
                Ok(_) => failures = 0,
                Err(error) if is_transient(&error) && failures < TRANSIENT_FAILURES_MAX => failures += 1,
                Err(error) => abort(&error),
            }
            first = false;
            outstanding -= self.take_send_completions(sends, outcomes);
        }
    }

    /// Takes all completions there are; keeps those of others for `next_event`.
    fn take_send_completions(&mut self, sends: &[Outgoing<'_>], outcomes: &mut [SendOutcome]) -> usize {
        let mut taken = 0;
        while let Some(completion) = self.kernel.next_completion() {
            if completion.tag.operation() != Some(Operation::Send) {
                self.pending.push_back(completion);
                continue;
            }
            let index = completion.tag.slot() as usize;
            outcomes[index] = outcome(completion.result, sends[index].bytes.len());
            taken += 1;
        }
        taken
    }

    /// Earlier requests leave the submission queue, so that the whole batch fits.
    fn make_room(&mut self, wanted: usize) {
        let mut failures = 0;
        while self.kernel.room() < wanted {
            match self.kernel.enter(0, true) {
                Ok(_) => failures = 0,
                Err(error) if is_transient(&error) && failures < TRANSIENT_FAILURES_MAX => failures += 1,
                Err(error) => abort(&error),
            }
            while let Some(completion) = self.kernel.next_completion() {
                self.pending.push_back(completion);
            }
        }
    }
}

fn outcome(result: i32, length: usize) -> SendOutcome {
    match result {
        sent if sent >= 0 && sent as usize >= length => SendOutcome::Sent,
        sent if sent >= 0 => SendOutcome::Full { accepted: sent as usize },
        error if error == -libc::EAGAIN || error == -libc::EINTR => SendOutcome::Full { accepted: 0 },
        error => SendOutcome::Failed(-error),
    }
}

fn abort(error: &io::Error) -> ! {
    // The kernel may read the batch's bytes at any later time: nothing that unwinds or returns is sound.
    eprintln!("io_uring_enter failed with sends in the queue: {error}");
    std::process::abort()
}
