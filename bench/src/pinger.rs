//! Pings at an even pace. The delay of each is counted from when it was due, independent of the pings before
//! it.
//!
//! One thread with raised priority serves several gateways, so that a delay of the generator affects all of
//! them equally. The pinging sessions subscribe to nothing.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client::frames::{Opcode, write_masked};
use crate::client::handshake::{Handshake, Progress};
use crate::client::target::Target;
use crate::machine;

/// The interval between two pings of a session.
pub const INTERVAL: Duration = Duration::from_millis(2);
/// Priority of the thread, as of nice(1).
const NICE: i32 = -10;
const PATIENCE: Duration = Duration::from_secs(5);

/// The pinging sessions, one for each gateway.
pub struct Pingers {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

struct Shared {
    stop: AtomicBool,
    /// By session: the largest delay since the last call of `take_largest`.
    largest: Mutex<Vec<Duration>>,
}

struct Pinger {
    stream: TcpStream,
    incomplete: Vec<u8>,
    /// Number and due time of the unanswered pings.
    waiting: VecDeque<(u32, Instant)>,
}

impl Pingers {
    /// Connects to each target and starts pinging.
    pub fn start(targets: &[Target]) -> io::Result<Self> {
        let pingers = targets.iter().map(Pinger::open).collect::<io::Result<Vec<_>>>()?;
        let largest = Mutex::new(vec![Duration::ZERO; targets.len()]);
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), largest });
        let of_thread = Arc::clone(&shared);
        let body = move || ping(pingers, &of_thread);
        let thread = thread::Builder::new().name("pinger".to_owned()).spawn(body)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The largest delay of each session since the last call, including pings that are still unanswered.
    pub fn take_largest(&self) -> Vec<Duration> {
        let mut largest = self.shared.largest.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = largest.clone();
        largest.fill(Duration::ZERO);
        taken
    }

    /// Stops the pings.
    pub fn stop(mut self) -> io::Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().expect("it does not panic")
    }
}

fn ping(mut pingers: Vec<Pinger>, shared: &Shared) -> io::Result<()> {
    // Without the privilege the priority stays the same, and all sessions are delayed by the generator alike.
    let _ = machine::set_nice(NICE);
    let (mut number, mut due) = (0_u32, Instant::now());
    while !shared.stop.load(Ordering::Relaxed) {
        while due <= Instant::now() {
            for pinger in &mut pingers {
                pinger.ping(number, due)?;
            }
            (number, due) = (number.wrapping_add(1), due + INTERVAL);
        }
        let wait = due.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.as_nanos() as i64 };
        let mut polled: Vec<_> = pingers.iter().map(|it| PollFd::new(&it.stream, PollFlags::IN)).collect();
        match poll(&mut polled, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for (index, pinger) in pingers.iter_mut().enumerate() {
            let delay = pinger.read_pongs()?;
            let mut largest = shared.largest.lock().unwrap_or_else(PoisonError::into_inner);
            largest[index] = largest[index].max(delay);
        }
    }
    Ok(())
}

impl Pinger {
    fn open(target: &Target) -> io::Result<Self> {
        let mut stream = TcpStream::connect(target.resolve()?)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (mut handshake, request) = Handshake::begin(target);
        stream.write_all(&request)?;
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer)?;
            match handshake.feed(&buffer[..count]) {
                Progress::Incomplete if count > 0 => {}
                Progress::Upgraded(incomplete) => {
                    stream.set_nonblocking(true)?;
                    return Ok(Self { stream, incomplete, waiting: VecDeque::new() });
                }
                other => return Err(io::Error::other(format!("a pinger got no session: {other:?}"))),
            }
        }
    }

    fn ping(&mut self, number: u32, due: Instant) -> io::Result<()> {
        let mut frame = Vec::new();
        write_masked(&mut frame, Opcode::Ping, &number.to_be_bytes(), [1, 2, 3, 4]);
        self.waiting.push_back((number, due));
        // A few bytes: if a socket does not accept them, its gateway has not read for a long time.
        self.stream.write_all(&frame)
    }

    /// Reads received bytes. Returns the largest delay of the answered pings and of those still unanswered.
    fn read_pongs(&mut self) -> io::Result<Duration> {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("a pinger was closed")),
            Ok(count) => self.incomplete.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        let now = Instant::now();
        let oldest = self.waiting.front().map(|(_, due)| now.saturating_duration_since(*due));
        // Control frames only: two bytes of header, and 125 of payload at most.
        while let [first, length, ..] = self.incomplete[..] {
            let end = 2 + usize::from(length);
            let Some(payload) = self.incomplete.get(2..end) else { break };
            if (first, payload.len()) == (0x8a, 4) {
                let number = u32::from_be_bytes(payload.try_into().expect("four bytes"));
                // The answer to the newest ping also answers the earlier ones.
                while self.waiting.front().is_some_and(|(waiting, _)| *waiting <= number) {
                    self.waiting.pop_front();
                }
            }
            self.incomplete.drain(..end);
        }
        Ok(oldest.unwrap_or_default())
    }
}
