//! Batches of sends: one system call for up to 512 sockets, complete when it returns.
//!
//! With `MSG_DONTWAIT` a send completes inside the submit: in full, short because the socket filled up, or with EAGAIN
//! because it was full. So the bytes can be borrowed, and no send is ever in flight between two calls.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::driver::Driver;
use crate::kernel::is_transient;
use crate::kernel::{Kernel, Operation, Tag};
use crate::sockets::{SocketId, SocketState};

/// Consecutive enters of one batch without progress that mean a fault of the machine.
const FRUITLESS_ENTERS_MAX: u32 = 100_000;
/// How long an abort waits for standard error to accept its reason.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(1);

/// Bytes for one socket.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The destination. At most once in a batch.
    pub socket: SocketId,
    /// The bytes; at least one.
    pub bytes: &'a [u8],
}

/// The outcome of one send of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// The kernel has accepted all bytes.
    Sent,
    /// The socket is full after `accepted` bytes (perhaps none): keep the rest and `wait_writable`.
    Full {
        /// Bytes that the kernel has accepted.
        accepted: usize,
    },
    /// The connection is broken (an errno of send(2)). The socket waits for `abort`.
    Failed(i32),
    /// The socket has closed, or is closing.
    Gone,
}

impl<K: Kernel> Driver<K> {
    /// Sends to many sockets at once and writes each outcome to its place in `outcomes`.
    ///
    /// Ends the process rather than return while the kernel may still read the borrowed bytes; this takes an error of
    /// io_uring_enter(2) that only a broken ring returns.
    pub fn send_batch(&mut self, sends: &[Outgoing<'_>], outcomes: &mut Vec<SendOutcome>) {
        outcomes.clear();
        outcomes.resize(sends.len(), SendOutcome::Gone);
        debug_assert!(
            at_most_once(sends),
            "one socket twice in a batch: its bytes could be cut and reordered"
        );
        let _no_unwinding = NoUnwinding;
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
            if socket.stage != SocketState::Open {
                continue;
            }
            if send.bytes.is_empty() {
                outcomes[index] = SendOutcome::Sent;
                continue;
            }
            let tag = Tag::new(Operation::Send, 0, index as u32);
            // SAFETY: `finish_sends` does not return before it has taken this request's completion, `sends` borrows the
            // bytes for longer than that, and a panic on the way there ends the process (`NoUnwinding`).
            unsafe { self.kernel.push_send(tag, socket.fd.as_fd(), send.bytes) };
            outstanding += 1;
        }
        outstanding
    }

    fn finish_sends(&mut self, mut outstanding: usize, sends: &[Outgoing<'_>], outcomes: &mut [SendOutcome]) {
        let mut enters = Enters::default();
        let mut first = true;
        while outstanding > 0 {
            // Normally the first enter submits and completes all. A missing completion means that the request was not submitted (a
            // short count) or, contrary to experience, became asynchronous: then there is something to wait for.
            let wait = u32::from(self.kernel.unsubmitted() == 0);
            enters.enter(&mut self.kernel, wait, !first);
            first = false;
            outstanding -= self.take_send_completions(sends, outcomes);
        }
    }

    /// Takes all available completions; keeps those of other requests for `next_event`.
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

    /// Submits earlier requests from the submission queue, so that the whole batch fits.
    fn make_room(&mut self, wanted: usize) {
        let mut enters = Enters::default();
        while self.kernel.room() < wanted {
            enters.enter(&mut self.kernel, 0, true);
            while let Some(completion) = self.kernel.next_completion() {
                self.pending.push_back(completion);
            }
        }
    }
}

/// The enters of one batch, repeated until the batch is complete.
#[derive(Default)]
struct Enters {
    fruitless: u32,
}

impl Enters {
    fn enter<K: Kernel>(&mut self, kernel: &mut K, wait: u32, run_deferred: bool) {
        match kernel.enter(wait, run_deferred) {
            Ok(taken) if taken > 0 || wait > 0 => self.fruitless = 0,
            Err(error) if !is_transient(&error) => abort(&error.to_string()),
            Err(error) if self.fruitless == FRUITLESS_ENTERS_MAX => abort(&error.to_string()),
            Ok(_) if self.fruitless == FRUITLESS_ENTERS_MAX => abort("it takes no request"),
            Ok(_) | Err(_) => self.fruitless += 1,
        }
    }
}

/// Held while the kernel may read borrowed bytes: no unwinding may pass them.
struct NoUnwinding;

impl Drop for NoUnwinding {
    fn drop(&mut self) {
        if std::thread::panicking() {
            abort("a panic");
        }
    }
}

fn at_most_once(sends: &[Outgoing<'_>]) -> bool {
    let mut seen = HashSet::with_capacity(sends.len());
    sends.iter().all(|send| seen.insert(send.socket))
}

fn outcome(result: i32, length: usize) -> SendOutcome {
    match result {
        sent if sent >= 0 && sent as usize >= length => SendOutcome::Sent,
        sent if sent >= 0 => SendOutcome::Full { accepted: sent as usize },
        error if error == -libc::EAGAIN || error == -libc::EINTR => SendOutcome::Full { accepted: 0 },
        error => SendOutcome::Failed(-error),
    }
}

fn abort(cause: &str) -> ! {
    // The kernel may read the batch's bytes at any later time: neither unwinding nor returning is sound.
    let text = format!(
        "the kernel may still read bytes of a batch of sends, and io_uring_enter(2) gives no way on: {cause}"
    );
    let (done, written) = channel();
    // A standard error that is closed or not read does not delay the abort.
    let _ = thread::Builder::new().spawn(move || {
        let _ = writeln!(io::stderr(), "{text}");
        let _ = done.send(());
    });
    let _ = written.recv_timeout(LAST_WORDS_PATIENCE);
    std::process::abort()
}
