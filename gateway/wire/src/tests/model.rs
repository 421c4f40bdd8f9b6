//! Random steps against a model of the events that an owner may see: bytes in order and complete, only one `Closed` after a
//! close, no missed message of another thread, and no leak at the end. `WIRE_SEED=n` repeats one seed.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use super::{BUFFERS, Bench, Happened, LINGER, of};
use crate::driver::send::SendOutcome;
use crate::fake::{Cancel, Enter, LATE, Send, Sleep};
use crate::kernel::Operation;
use crate::sockets::SocketId;

const SEEDS: u64 = 40;
const STEPS: usize = 3_000;

#[test]
fn no_order_of_completions_and_calls_breaks_the_contract() {
    let seeds: Vec<u64> = match std::env::var("WIRE_SEED") {
        Ok(seed) => vec![seed.parse().expect("WIRE_SEED is a number")],
        Err(_) => {
            let first = fastrand::u64(..1 << 48);
            (first..first + SEEDS).collect()
        }
    };
    let mut closed = 0;
    for seed in seeds {
        println!("WIRE_SEED={seed}");
        closed += Model::new(seed).run();
    }
    assert!(closed > 0, "the steps open and close sockets");
}

/// The owner's knowledge of one socket.
#[derive(Default)]
struct Seen {
    /// Bytes that arrived and were not reported yet.
    untold: Vec<u8>,
    /// The receiving side has ended, which was or will be reported.
    ended: bool,
    end_told: bool,
    connecting: bool,
    sent: Vec<u8>,
    closing: bool,
    paused: bool,
}

struct Model {
    bench: Bench,
    random: fastrand::Rng,
    sockets: HashMap<SocketId, Seen>,
    /// In order of creation: choices must depend on the seed alone.
    open: Vec<SocketId>,
    closed: Vec<SocketId>,
    listener: TcpListener,
    counter: u8,
    /// Messages of other threads, each followed by a wake-up, and those that the owner has seen.
    published: u64,
    looked_at: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new(8);
        bench.driver.kernel.completions_max = random.usize(1..12);
        bench.driver.kernel.deferred_per_enter = random.usize(1..6);
        bench.listen();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        Self {
            bench,
            random,
            sockets: HashMap::new(),
            open: vec![],
            closed: vec![],
            listener,
            counter: 0,
            published: 0,
            looked_at: 0,
        }
    }

    /// Runs all steps, then ends everything; returns the number of sockets.
    fn run(mut self) -> usize {
        for _ in 0..STEPS {
            self.step();
        }
        self.bench.driver.kernel.script = crate::fake::Script::default();
        for id in self.open.clone() {
            if self.random.bool() { self.close(id) } else { self.abort(id) }
        }
        self.bench.driver.stop_accepting();
        loop {
            self.bench.now += LINGER;
            self.turn(usize::MAX);
            if self.bench.driver.may_sleep().expect("only passing failures") {
                break;
            }
        }
        assert!(self.sockets.is_empty(), "never closed: {:?}", self.sockets.keys());
        let different: HashSet<_> = self.closed.iter().collect();
        assert_eq!(different.len(), self.closed.len(), "closed twice");
        self.bench.driver.kernel.assert_idle();
        assert_eq!(self.bench.driver.readings().sockets, 0);
        assert_eq!(self.bench.driver.readings().buffers_free, usize::from(BUFFERS));
        self.closed.len()
    }

    fn step(&mut self) {
        match self.random.u32(0..100) {
            0..20 => {
                let events_max = self.random.usize(0..6);
                self.turn(events_max);
            }
            20..25 => self.sleep(),
            25..35 => self.peer_connects(),
            35..55 => self.bytes_arrive(),
            55..60 => self.receive_ends(),
            60..66 => self.writable(),
            66..80 => self.send(),
            80..84 => self.pick(|model, id| model.bench.driver.wait_writable(id)),
            84..86 => self.pick(Self::close),
            86 => self.pause(),
            87 => self.publish(),
            88..91 => self.pick(Self::abort),
            91..93 => self.connect(),
            93..95 => self.stray(),
            95 if self.random.bool() => self.listen_again(),
            95 => self.pause(),
            96..98 => self.bench.now += Duration::from_millis(self.random.u64(0..500)),
            _ => self.script(),
        }
    }

    fn turn(&mut self, events_max: usize) {
        self.bench.driver.begin_turn(self.bench.now).expect("only passing failures");
        for _ in 0..events_max {
            let event = self.bench.driver.next_event(self.bench.now).expect("only passing failures");
            let Some(happened) = event.as_ref().map(of) else { break };
            self.on_event(happened);
        }
    }

    /// Sleeps as an owner does, while another thread may publish at any moment.
    fn sleep(&mut self) {
        if !self.bench.driver.may_sleep().expect("only passing failures") {
            return;
        }
        self.maybe_publish();
        if self.looked_at < self.published {
            self.looked_at = self.published;
            return;
        }
        self.maybe_publish();
        match self.random.u32(0..4) {
            0 => self.bench.driver.kernel.script.sleeps.push_back(Sleep::Woken(self.bench.driver.waker())),
            1 => self.bench.driver.kernel.script.sleeps.push_back(Sleep::Signal),
            _ => {}
        }
        let slept = self.bench.fake().slept;
        self.bench.driver.sleep(Duration::from_secs(1)).expect("only passing failures");
        self.bench.driver.kernel.script.sleeps.clear();
        if self.bench.fake().slept > slept {
            assert_eq!(self.looked_at, self.published, "slept through a message");
            let driver = &self.bench.driver;
            assert!(driver.pending.is_empty() && driver.closed.is_empty() && driver.queued.is_empty());
            self.check_receives();
        }
    }

    /// With no request in flight, a socket is read unless it is paused or has ended.
    fn check_receives(&self) {
        let sockets = self.sockets.iter().filter(|(_, seen)| !seen.closing && !seen.connecting);
        for (&id, seen) in sockets {
            let is_wanted = !seen.paused && !seen.end_told;
            assert_eq!(self.bench.is_armed(id, Operation::Receive), is_wanted, "paused: {}", seen.paused);
        }
    }

    /// Pauses a socket, or resumes it.
    fn pause(&mut self) {
        self.pick(|model, id| {
            let seen = model.sockets.get_mut(&id).expect("open");
            seen.paused = !seen.paused && !seen.connecting && !seen.end_told && !seen.closing;
            if seen.paused {
                model.bench.driver.pause_receive(id);
            } else {
                model.bench.driver.resume_receive(id);
            }
        });
    }

    /// Takes bytes that arrived although their receive was being cancelled.
    fn note_late_bytes(&mut self) {
        for id in std::mem::take(&mut self.bench.fake().late_bytes) {
            if let Some(seen) = self.sockets.get_mut(&id) {
                seen.untold.extend(LATE);
            }
        }
    }

    fn publish(&mut self) {
        self.published += 1;
        self.bench.driver.waker().wake();
    }

    fn maybe_publish(&mut self) {
        if self.random.u32(0..4) == 0 {
            self.publish();
        }
    }

    fn on_event(&mut self, happened: Happened) {
        self.note_late_bytes();
        match happened {
            Happened::Accepted(id) => self.opened(id, false),
            Happened::AcceptFailed(errno) => assert_eq!(errno, libc::EMFILE),
            Happened::Connected(id) => {
                let seen = self.seen(id);
                assert!(seen.connecting, "connected twice");
                seen.connecting = false;
            }
            Happened::Received(id, bytes) => {
                let seen = self.seen(id);
                assert!(!seen.end_told && !seen.connecting);
                assert!(seen.untold.starts_with(&bytes), "lost, repeated or out of order");
                seen.untold.drain(..bytes.len());
            }
            Happened::PeerFinished(id) => self.end_told(id),
            Happened::Failed(id, errno) => {
                assert!(matches!(errno, libc::ECONNRESET | libc::ECONNREFUSED));
                if self.seen(id).connecting {
                    self.seen(id).ended = true;
                }
                self.end_told(id);
            }
            Happened::Writable(id) => assert!(!self.seen(id).connecting),
            Happened::Closed(id) => {
                let seen = self.sockets.remove(&id).expect("closed once, and opened before");
                assert!(seen.closing, "nobody closed it");
                self.open.retain(|&open| open != id);
                self.closed.push(id);
            }
        }
    }

    fn opened(&mut self, id: SocketId, connecting: bool) {
        assert!(!self.closed.contains(&id), "an id used again");
        assert!(self.open.iter().all(|open| open.slot() != id.slot()), "a slot with two sockets");
        let former = self.sockets.insert(id, Seen { connecting, ..Seen::default() });
        assert!(former.is_none());
        self.open.push(id);
    }

    fn seen(&mut self, id: SocketId) -> &mut Seen {
        let seen = self.sockets.get_mut(&id).expect("an event of an open socket");
        assert!(!seen.closing, "an event after the close");
        seen
    }

    fn end_told(&mut self, id: SocketId) {
        let seen = self.seen(id);
        assert!(seen.ended && !seen.end_told, "told once, and not invented");
        assert!(seen.untold.is_empty(), "the end overtook {} bytes", seen.untold.len());
        seen.end_told = true;
    }

    fn pick(&mut self, call: impl Fn(&mut Self, SocketId)) {
        if let Some(id) = self.random.choice(self.open.clone()) {
            call(self, id);
        }
    }

    fn close(&mut self, id: SocketId) {
        self.bench.close(id);
        self.sockets.get_mut(&id).expect("open").closing = true;
    }

    fn abort(&mut self, id: SocketId) {
        self.bench.driver.abort(id);
        self.sockets.get_mut(&id).expect("open").closing = true;
    }

    fn peer_connects(&mut self) {
        match self.bench.fake().armed(Operation::Accept).first().copied() {
            None => {}
            Some(tag) if self.random.u32(0..10) == 0 => {
                let errno = self.random.choice([libc::EMFILE, libc::ECONNABORTED]).expect("two");
                self.bench.fake().end(tag, -errno);
            }
            Some(_) => self.bench.fake().peer_connects(),
        }
    }

    fn bytes_arrive(&mut self) {
        let receives = self.bench.fake().armed(Operation::Receive);
        let Some(tag) = self.random.choice(receives) else { return };
        self.counter = self.counter.wrapping_add(1);
        let bytes = vec![self.counter; self.random.usize(1..5)];
        let arrives = self.bench.fake().buffers_free() > 0;
        let more = self.random.u32(0..4) > 0;
        self.bench.fake().bytes_arrive(SocketId::of(tag), &bytes, more);
        // Without a buffer the bytes stay in the socket; here, a later arrival replaces them.
        if arrives && let Some(seen) = self.sockets.get_mut(&SocketId::of(tag)) {
            seen.untold.extend(bytes);
        }
    }

    fn receive_ends(&mut self) {
        let receives = self.bench.fake().armed(Operation::Receive);
        let Some(tag) = self.random.choice(receives) else { return };
        let result = self.random.choice([0, -libc::ECONNRESET, -libc::ENOBUFS, -libc::EINTR]).expect("four");
        self.bench.fake().end(tag, result);
        if [0, -libc::ECONNRESET].contains(&result)
            && let Some(seen) = self.sockets.get_mut(&SocketId::of(tag))
        {
            seen.ended = true;
        }
    }

    fn writable(&mut self) {
        let waits = self.bench.fake().armed(Operation::Writable);
        let Some(tag) = self.random.choice(waits) else { return };
        if self.random.u32(0..4) == 0 {
            self.bench.fake().script.connects.push_back(libc::ECONNREFUSED);
        }
        self.bench.fake().end(tag, i32::from(libc::POLLOUT));
    }

    fn send(&mut self) {
        let mut ids = self.open.clone();
        ids.extend(self.closed.last().copied());
        self.random.shuffle(&mut ids);
        ids.truncate(self.random.usize(0..=ids.len()));
        for _ in 0..self.random.usize(0..3) {
            let answer = match self.random.u32(0..4) {
                0 => Send::Takes(self.random.usize(0..5)),
                1 => Send::Fails(libc::EAGAIN),
                2 => Send::Fails(libc::ECONNRESET),
                _ => Send::Later,
            };
            self.bench.fake().script.sends.push_back(answer);
        }
        self.script();
        self.counter = self.counter.wrapping_add(1);
        let bytes = [self.counter; 5];
        let sends: Vec<_> = ids.iter().map(|&id| (id, &bytes[..])).collect();
        let outcomes = self.bench.send(&sends);
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            let Some(seen) = self.sockets.get_mut(&id) else {
                assert_eq!(outcome, SendOutcome::Gone);
                continue;
            };
            match outcome {
                SendOutcome::Sent => seen.sent.extend(bytes),
                SendOutcome::Full { accepted } => seen.sent.extend(&bytes[..accepted]),
                SendOutcome::Failed(errno) => assert_eq!(errno, libc::ECONNRESET),
                SendOutcome::Gone => assert!(seen.closing || seen.connecting),
            }
            if !seen.closing && !seen.sent.is_empty() {
                let raw = self.bench.raw(id);
                assert_eq!(self.bench.driver.kernel.sent[&raw], seen.sent);
            }
        }
    }

    fn connect(&mut self) {
        let address = self.listener.local_addr().expect("bound");
        match self.bench.driver.connect(address, None) {
            Ok(id) => {
                self.opened(id, true);
                self.listener.accept().expect("the connection of the real socket beneath");
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENFILE)),
        }
    }

    /// A completion of a socket that has closed.
    fn stray(&mut self) {
        let Some(&id) = self.closed.last() else { return };
        let operation = self
            .random
            .choice([Operation::Receive, Operation::Writable, Operation::CancelReceive])
            .expect("three");
        if operation == Operation::Receive && self.bench.fake().buffers_free() > 0 {
            let buffer = self.bench.fake().take_free_buffer();
            self.bench.fake().stray(id.tag(operation), 3, Some(buffer));
        } else {
            self.bench.fake().stray(id.tag(operation), -libc::ECANCELED, None);
        }
    }

    fn listen_again(&mut self) {
        if self.random.bool() {
            self.bench.driver.stop_accepting();
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        self.bench.driver.accept_from(listener);
    }

    fn script(&mut self) {
        let errno = self.random.choice([libc::EAGAIN, libc::EBUSY, libc::EINTR]).expect("three");
        let takes = self.random.usize(0..4);
        let cancel =
            self.random.choice([Cancel::TargetFirst, Cancel::TargetLast, Cancel::TooLate, Cancel::Missed]);
        let script = &mut self.bench.driver.kernel.script;
        script.enters.push_back(if takes == 0 { Enter::Fails(errno) } else { Enter::Takes(takes) });
        script.cancels.extend(cancel);
        script.shutdown_fails = takes == 3;
    }
}
