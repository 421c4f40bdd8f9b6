//! Two honest clients, one of the attacked gateway and one of the control: each subscribes to a channel and
//! sends a ping every 20 ms, whether or not the previous one was answered. Both run on one thread, so that a
//! delay of the generator affects both.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use protocol::PatternName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Socket, Type};

use crate::client::dialect::Dialect;
use crate::client::end::End;
use crate::client::frames::{FrameReader, Message, Opcode, write_masked};
use crate::client::handshake::{Handshake, Progress};
use crate::client::target::Target;
use crate::ledger::{Ledger, SubscribeOutcome};
use crate::machine::clock_ms;
use crate::subscriptions::{self, Subscription};

/// Interval between two pings.
pub const PING_INTERVAL: Duration = Duration::from_millis(20);
/// How long to wait for pings after an attack.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 3, 1);
const READ_BYTES: usize = 64 * 1024;

/// Delays of one client during a period, in milliseconds from when a ping was due to its pong.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[allow(missing_docs)] // the keys are explained in README.md
pub struct BystanderDelay {
    pub p50_ms: f64,
    pub gap_ms: f64,
}

struct Bystander {
    number: usize,
    stream: TcpStream,
    reader: FrameReader,
    outbox: Vec<u8>,
    subscription: Rc<Subscription>,
    /// Unanswered pings: number and due time.
    waiting: VecDeque<(u32, Instant)>,
    delays: Vec<Duration>,
    is_live: bool,
    ended: Option<String>,
}

/// The two bystanders.
pub struct Bystanders {
    /// Received events: session 0 is that of the attacked gateway.
    pub ledger: Ledger,
    targets: [Target; 2],
    both: [Bystander; 2],
    subscriptions: Vec<Rc<Subscription>>,
    ping: u32,
    ping_due: Instant,
    random: Rng,
}

impl Bystanders {
    /// Connects and subscribes both bystanders.
    pub fn open(targets: [Target; 2], channel: PatternName<'static>) -> io::Result<Self> {
        let channels = vec![channel];
        let subscriptions = subscriptions::in_turn(Dialect::Gateway, &channels, 2);
        let mut random = Rng::new();
        let mut open = |number: usize| {
            Bystander::open(number, &targets[number], Rc::clone(&subscriptions[number]), &mut random)
        };
        let both = [open(0)?, open(1)?];
        let ledger = Ledger::new(2, channels);
        let mut these =
            Self { ledger, targets, both, subscriptions, ping: 0, ping_due: Instant::now(), random };
        let end = Instant::now() + OPEN_PATIENCE;
        while !these.both.iter().all(|it| it.is_live) {
            if Instant::now() >= end || these.closed().is_some() {
                return Err(io::Error::other(these.closed().unwrap_or("a bystander got no acknowledgement")));
            }
            these.turn()?;
        }
        these.ledger.audit.begin_window(clock_ms());
        Ok(these)
    }

    /// Why a bystander was closed, if one was.
    pub fn closed(&self) -> Option<&str> {
        self.both.iter().find_map(|it| it.ended.as_deref())
    }

    /// Reconnects closed bystanders.
    pub fn reopen(&mut self) -> io::Result<()> {
        for number in 0..2 {
            if self.both[number].ended.is_some() {
                let subscription = Rc::clone(&self.subscriptions[number]);
                self.both[number] =
                    Bystander::open(number, &self.targets[number], subscription, &mut self.random)?;
            }
        }
        Ok(())
    }

    /// Measures until `is_over` returns true and all pings are answered, or answers can no longer be
    /// expected.
    pub fn watch(&mut self, mut is_over: impl FnMut() -> bool) -> io::Result<[BystanderDelay; 2]> {
        for bystander in &mut self.both {
            bystander.delays.clear();
            bystander.waiting.clear();
        }
        let mut over_since = None;
        loop {
            self.turn()?;
            if over_since.is_none() && is_over() {
                over_since = Some(Instant::now());
            }
            let Some(since) = over_since else { continue };
            // Answered, except for the newest ping.
            let is_answered = |it: &Bystander| it.ended.is_some() || it.waiting.len() <= 1;
            if self.both.iter().all(is_answered) || since.elapsed() > ANSWER_PATIENCE {
                return Ok([self.both[0].delay(), self.both[1].delay()]);
            }
        }
    }

    /// Measures for this duration.
    pub fn watch_for(&mut self, duration: Duration) -> io::Result<[BystanderDelay; 2]> {
        let end = Instant::now() + duration;
        self.watch(|| Instant::now() >= end)
    }

    fn turn(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if now >= self.ping_due {
            self.ping = self.ping.wrapping_add(1);
            for bystander in self.both.iter_mut().filter(|it| it.ended.is_none()) {
                bystander.waiting.push_back((self.ping, self.ping_due));
                let mask = self.random.u32(..).to_ne_bytes();
                write_masked(&mut bystander.outbox, Opcode::Ping, &self.ping.to_be_bytes(), mask);
                bystander.write();
            }
            self.ping_due += PING_INTERVAL;
        }
        let timeout = self.ping_due.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let live = self.both.iter().filter(|it| it.ended.is_none());
        let mut polled: Vec<_> = live.map(|it| PollFd::new(&it.stream, PollFlags::IN)).collect();
        if poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0) {
            self.ledger.set_clock(Instant::now(), clock_ms());
            for bystander in self.both.iter_mut().filter(|it| it.ended.is_none()) {
                bystander.read(&mut self.ledger, &mut self.random);
            }
        }
        Ok(())
    }
}

impl Bystander {
    fn open(
        number: usize,
        target: &Target,
        subscription: Rc<Subscription>,
        random: &mut Rng,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((SOURCE, 0)).into())?;
        socket.connect_timeout(&target.resolve()?.into(), OPEN_PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        let mut stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(OPEN_PATIENCE))?;
        let (mut handshake, request) = Handshake::begin(target);
        stream.write_all(&request)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = stream.read(&mut buffer)?;
            let progress = if count == 0 { handshake.finish() } else { handshake.feed(&buffer[..count]) };
            match progress {
                Progress::Incomplete => {}
                // No frame can follow the handshake before the subscription.
                Progress::Upgraded(_) => break,
                Progress::Refused(refusal) => return Err(io::Error::other(refusal.why)),
                Progress::Failed(why) => return Err(io::Error::other(why)),
            }
        }
        stream.set_nonblocking(true)?;
        let mut bystander = Self {
            number,
            stream,
            reader: FrameReader::default(),
            outbox: Vec::new(),
            waiting: VecDeque::new(),
            delays: Vec::new(),
            is_live: false,
            ended: None,
            subscription,
        };
        let mask = random.u32(..).to_ne_bytes();
        write_masked(&mut bystander.outbox, Opcode::Text, &bystander.subscription.message, mask);
        bystander.write();
        Ok(bystander)
    }

    fn delay(&mut self) -> BystanderDelay {
        let now = Instant::now();
        // The newest ping may be in flight.
        let unanswered = self.waiting.iter().map(|(_, due)| now.saturating_duration_since(*due));
        let overdue = unanswered.filter(|age| *age > PING_INTERVAL || self.ended.is_some());
        self.delays.extend(overdue.collect::<Vec<_>>());
        self.delays.sort_unstable();
        let ms = |delay: Option<&Duration>| delay.map_or(0.0, |delay| delay.as_secs_f64() * 1e3);
        BystanderDelay { p50_ms: ms(self.delays.get(self.delays.len() / 2)), gap_ms: ms(self.delays.last()) }
    }

    fn write(&mut self) {
        match self.stream.write(&self.outbox) {
            Ok(count) => drop(self.outbox.drain(..count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The received bytes say why the connection ended.
            Err(_) => self.outbox.clear(),
        }
    }

    fn read(&mut self, ledger: &mut Ledger, random: &mut Rng) {
        let mut buffer = [0; READ_BYTES];
        let end = match self.stream.read(&mut buffer) {
            Ok(0) => Some("the connection was closed".to_owned()),
            Ok(count) => self.on_bytes(&buffer[..count], ledger, random),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(error.to_string()),
        };
        self.write();
        if let Some(why) = end {
            ledger.on_end(self.number, self.is_live, End::ClosedByServer(why.clone()));
            self.ended = Some(why);
        }
    }

    fn on_bytes(&mut self, bytes: &[u8], ledger: &mut Ledger, random: &mut Rng) -> Option<String> {
        let Self { number, reader, outbox, subscription, waiting, delays, is_live, .. } = self;
        let now = Instant::now();
        let mut end = None;
        let read = reader.feed(bytes, |message| match message {
            Message::Text(text) if *is_live => ledger.on_text(*number, Dialect::Gateway, text),
            Message::Text(text) => match ledger.on_answer(*number, subscription, text) {
                SubscribeOutcome::Subscribed => *is_live = true,
                SubscribeOutcome::Refused(why) => end = Some(why),
                SubscribeOutcome::Connected | SubscribeOutcome::Nothing => {}
            },
            Message::Ping(payload) => {
                write_masked(outbox, Opcode::Pong, payload, random.u32(..).to_ne_bytes());
            }
            // A pong answers all pings up to its own (RFC 6455, 5.5.3).
            Message::Pong(payload) => {
                let Ok(answered) = payload.try_into().map(u32::from_be_bytes) else { return };
                while let Some((ping, due)) = waiting.front()
                    && *ping <= answered
                {
                    delays.push(now.saturating_duration_since(*due));
                    waiting.pop_front();
                }
            }
            Message::Binary(_) => ledger.count_unreadable("a binary message"),
            Message::Close(code, reason) => {
                end = Some(format!("closed with {code} {}", String::from_utf8_lossy(reason)));
            }
        });
        end.or_else(|| read.err().map(|error| error.to_string()))
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        for bystander in self.both.iter_mut().filter(|it| it.ended.is_none()) {
            write_masked(&mut bystander.outbox, Opcode::Close, &1000_u16.to_be_bytes(), [0; 4]);
            bystander.write();
        }
        thread::sleep(Duration::from_millis(10));
    }
}
