//! The driver's turns: armed requests go to the kernel, and completions come back as events.

pub(crate) mod accept;
pub(crate) mod close;
pub(crate) mod events;
pub(crate) mod pause;
pub(crate) mod requests;
pub(crate) mod send;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use self::accept::Accepting;
use self::close::Lingering;
use self::events::Event;
use crate::buffers::BufferId;
use crate::error::SetupError;
use crate::kernel::{Completion, Kernel, Operation, Request, Tag, is_transient};
use crate::options::{DriverOptions, Readings};
use crate::sockets::{Armed, SocketId, SocketState, Sockets};
use crate::uring::{Uring, UringSizes};
use crate::wake::Waker;

/// Rounds of io_uring_enter(2) for deferred work in one turn. Newer kernels run only about 20 deferred items per enter
/// (`IO_LOCAL_TW_DEFAULT_MAX`, Linux 6.13) and do not signal the rest.
const DEFERRED_ROUNDS_PER_TURN: u32 = 64;

/// One thread's sockets on one io_uring. See the crate's documentation for how to drive it.
pub struct Driver<K: Kernel = Uring> {
    pub(crate) kernel: K,
    pub(crate) sockets: Sockets,
    pub(crate) batch: usize,
    /// Requests to submit with the next enter. At most one per bit of `Armed` and socket, two per accept.
    pub(crate) queued: VecDeque<Tag>,
    /// Other completions that arrived while a batch of sends waited for its own.
    pub(crate) pending: VecDeque<Completion>,
    /// Sockets whose `Closed` is not reported yet; until then their slots are occupied.
    pub(crate) closed: VecDeque<SocketId>,
    pub(crate) lingering: Lingering,
    pub(crate) linger_bytes: usize,
    pub(crate) accepting: Accepting,
    /// The buffer behind the last event's bytes.
    pub(crate) lent: Option<BufferId>,
    buffers: usize,
    deferred_rounds: u32,
    waker: Waker,
    /// A poll of the waker's descriptor is in the kernel, or its completion has not been taken yet.
    wake_is_armed: bool,
    pub(crate) readings: Readings,
}

impl Driver<Uring> {
    /// Sets up the ring on the calling thread, which must be the one that drives it.
    ///
    /// # Errors
    /// Names the step that the kernel refused.
    pub fn new(options: &DriverOptions) -> Result<Self, SetupError> {
        options.check()?;
        let waker = Waker::new().map_err(SetupError::Wake)?;
        let sizes = UringSizes {
            // Room for a batch and for the requests that were armed in the same turn.
            submissions: (2 * options.batch as u32).next_power_of_two(),
            // Room for one completion of each socket, a whole batch and a wake-up without overflow.
            completions: ((options.sockets + options.batch + options.accepts + 1) as u32).next_power_of_two(),
            buffers: options.buffers,
            buffer_bytes: options.buffer_bytes,
            accepts: options.accepts,
        };
        let kernel = Uring::new(&sizes)?;
        Ok(Self::with_kernel(kernel, waker, options))
    }
}

impl<K: Kernel> Driver<K> {
    pub(crate) fn with_kernel(kernel: K, waker: Waker, options: &DriverOptions) -> Self {
        Self {
            kernel,
            sockets: Sockets::new(options.sockets),
            batch: options.batch,
            queued: VecDeque::new(),
            pending: VecDeque::new(),
            closed: VecDeque::new(),
            lingering: Lingering::new(options.linger),
            linger_bytes: options.linger_bytes,
            accepting: Accepting::new(options.accepts),
            lent: None,
            buffers: usize::from(options.buffers),
            deferred_rounds: 0,
            waker,
            wake_is_armed: false,
            readings: Readings::default(),
        }
    }

    /// Starts a connect; `Connected` or `Failed` follows. `source` is the local address, if it matters.
    ///
    /// # Errors
    /// No descriptor, no slot (`ENFILE`), a source address that cannot be bound, or an immediate error of connect(2).
    pub fn connect(&mut self, peer: SocketAddr, source: Option<SocketAddr>) -> io::Result<SocketId> {
        if !self.has_slot() {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        let socket = RawSocket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if let Some(source) = source {
            socket.bind(&source.into())?;
        }
        socket.set_nonblocking(true)?;
        match socket.connect(&peer.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        // On a non-blocking descriptor the kernel would answer EAGAIN instead of arming a receive.
        socket.set_nonblocking(false)?;
        let id =
            self.sockets.insert(socket.into(), SocketState::Connecting).expect("a slot is free: asked above");
        self.arm(id, Operation::Writable);
        Ok(id)
    }

    /// Requests one `Writable` event. A second call before the event has no effect.
    pub fn wait_writable(&mut self, id: SocketId) {
        if let Some(socket) = self.sockets.find(id)
            && socket.stage == SocketState::Open
            && !socket.armed.contains(Armed::WRITABLE)
        {
            self.arm(id, Operation::Writable);
        }
    }

    /// First step of a turn: submits armed requests and lets the kernel complete its deferred work.
    ///
    /// # Errors
    /// io_uring_enter(2) failed with an error that no retry fixes; the ring is unusable.
    pub fn begin_turn(&mut self, now: Instant) -> io::Result<()> {
        self.release_lent();
        self.deferred_rounds = DEFERRED_ROUNDS_PER_TURN;
        self.end_overdue_lingers(now);
        self.wake_resting_accepts(now);
        self.submit_queued()?;
        if self.kernel.has_deferred() { self.run_deferred() } else { Ok(()) }
    }

    /// The next event of this turn; `None` if there is none now.
    ///
    /// # Errors
    /// As `begin_turn`.
    pub fn next_event(&mut self, now: Instant) -> io::Result<Option<Event<'_>>> {
        self.release_lent();
        loop {
            if let Some(id) = self.closed.pop_front() {
                // Not earlier: the owner's table by slot must not see the next socket before this one's end.
                self.sockets.free(id);
                self.wake_waiting_accept();
                return Ok(Some(Event::Closed(id)));
            }
            let Some(mut completion) = self.take_completion()? else { return Ok(None) };
            if completion.tag.operation() == Some(Operation::Wake) {
                self.on_wake(&completion)?;
                continue;
            }
            if let Some(outcome) = self.on_completion(&mut completion, now) {
                return Ok(Some(self.event(outcome, completion)));
            }
        }
    }

    /// Whether nothing waits in the ring. If so, the owner checks its other sources once more and then calls `sleep`: a wake-up
    /// after this call ends the sleep, and that check finds anything that came before.
    ///
    /// # Errors
    /// As `begin_turn`.
    pub fn may_sleep(&mut self) -> io::Result<bool> {
        self.release_lent();
        // Not while the poll is armed: a wake-up since then is in the ring, and only a new poll would find this one again.
        if !self.wake_is_armed {
            self.waker.drain();
        }
        self.submit_queued()?;
        if self.kernel.has_deferred() {
            self.run_deferred()?;
        }
        if let Some(completion) = self.kernel.next_completion() {
            self.pending.push_back(completion);
        }
        Ok(!self.has_work())
    }

    /// Sleeps until the ring has something, a [`Waker`] is called, or the timeout expires; a signal may end the sleep early.
    /// Returns at once if something waits already, even if it came after `may_sleep`, which must be called first.
    ///
    /// One io_uring_enter(2) submits the poll of the waker's descriptor, unless one is armed, and waits. The poll completes
    /// at once if the waker was called since `may_sleep` drained it.
    ///
    /// # Errors
    /// As `begin_turn`.
    pub fn sleep(&mut self, timeout: Duration) -> io::Result<()> {
        self.release_lent();
        if timeout.is_zero() || self.has_work() {
            return Ok(());
        }
        if !self.wake_is_armed {
            // There is room: every request is submitted.
            let request = Request::Wake { fd: self.waker.fd() };
            self.kernel.push(Tag::new(Operation::Wake, 0, 0), request);
            self.wake_is_armed = true;
        }
        match self.kernel.sleep(timeout) {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) || is_transient(&error) => Ok(()),
            slept => slept,
        }
    }

    fn on_wake(&mut self, completion: &Completion) -> io::Result<()> {
        self.wake_is_armed = false;
        if completion.result < 0 {
            // Without the poll no other thread could end a sleep.
            return Err(io::Error::from_raw_os_error(-completion.result));
        }
        Ok(())
    }

    /// Whether a turn has work.
    fn has_work(&mut self) -> bool {
        !self.pending.is_empty()
            || !self.closed.is_empty()
            || !self.queued.is_empty()
            // After a transient failure of an enter.
            || self.kernel.unsubmitted() > 0
            || self.kernel.has_deferred()
    }

    /// The time at which `begin_turn` has work even if nothing wakes the owner.
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.lingering.next_deadline(), self.accepting.next_deadline()) {
            (Some(first), Some(second)) => Some(first.min(second)),
            (first, second) => first.or(second),
        }
    }

    /// A waker of the owner; it can be sent to any thread.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Whether this socket has not closed yet.
    pub fn is_known(&self, id: SocketId) -> bool {
        self.sockets.peek(id).is_some()
    }

    /// Counters and fill levels.
    pub fn readings(&self) -> Readings {
        Readings {
            sockets: self.sockets.len(),
            buffers_free: self.buffers - self.kernel.buffers_taken(),
            ..self.readings
        }
    }

    fn take_completion(&mut self) -> io::Result<Option<Completion>> {
        if let Some(completion) = self.pending.pop_front() {
            return Ok(Some(completion));
        }
        loop {
            if let Some(completion) = self.kernel.next_completion() {
                return Ok(Some(completion));
            }
            if self.deferred_rounds == 0 || !self.kernel.has_deferred() {
                return Ok(None);
            }
            self.deferred_rounds -= 1;
            // Requests that were armed meanwhile are submitted too: a paused receive brings no more bytes in this turn.
            if self.queued.is_empty() { self.run_deferred()? } else { self.submit_queued()? }
        }
    }

    pub(crate) fn run_deferred(&mut self) -> io::Result<()> {
        match self.kernel.enter(0, true) {
            Ok(_) => Ok(()),
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn release_lent(&mut self) {
        if let Some(buffer) = self.lent.take() {
            self.kernel.release(buffer);
        }
    }
}
