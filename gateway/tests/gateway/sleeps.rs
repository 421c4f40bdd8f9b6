//! No sleep of a shard outlasts its deadline or a wake-up, on a machine with far too little CPU.
//!
//! Executors and drivers as shards have them are made again and again, sleep for random times, and are woken at random moments,
//! while other threads take the CPU. Each sleeper measures how much later it came back than it had to. What its thread waited for
//! a CPU meanwhile (schedstat, proc(5)) is the machine's doing; the rest is ours. A watcher finds those that do not come back.
//!
//! `SLEEPS_SECONDS=3600` makes the long one longer.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use gateway::shard::executor;
use wire::{Driver, DriverOptions, Waker};

const SLEEPERS: usize = 32;
/// Executors that a sleeper has, one after the other: glommio leaves a descriptor behind for each.
const STARTS_MAX: u64 = 200;
/// Threads that only take CPU, for each core.
const BURNERS_PER_CORE: usize = 8;
/// A sleep that only a wake-up ends: to lose one is to be as late as this.
const LONG: Duration = Duration::from_secs(60);
/// What a virtual machine's host may take without schedstat telling it.
const LATE_MAX: Duration = Duration::from_secs(2);
/// After which the watcher says that a sleeper does not come back.
const LOST_AFTER: Duration = Duration::from_secs(15);
/// Not asleep.
const AWAKE: u64 = u64::MAX;

struct Sleeper {
    began: Instant,
    waker: Mutex<Option<Waker>>,
    thread: AtomicU64,
    /// Messages to this sleeper, those that it has seen, and the last one whose wake-up was complete, with the time.
    published: AtomicU64,
    seen: AtomicU64,
    woken: AtomicU64,
    woken_at_ns: AtomicU64,
    /// When it has to be back, and what it had waited for a CPU before.
    due_ns: AtomicU64,
    waited_before_ns: AtomicU64,
    sleeps: AtomicU64,
    starts: AtomicU64,
    late_max_ns: AtomicU64,
}

impl Sleeper {
    fn new(began: Instant) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            began,
            waker: Mutex::new(None),
            thread: zero(),
            published: zero(),
            seen: zero(),
            woken: zero(),
            woken_at_ns: zero(),
            due_ns: AtomicU64::new(AWAKE),
            waited_before_ns: zero(),
            sleeps: zero(),
            starts: zero(),
            late_max_ns: zero(),
        }
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// One executor after the other, as if the gateway was started again and again.
    fn live(&self, end: &AtomicBool) {
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get() as u64, Ordering::Release);
        while !end.load(Ordering::Relaxed) {
            // What a start may take without being called lost.
            self.waited_before_ns.store(waited_ns("thread-self"), Ordering::Relaxed);
            self.due_ns.store(self.now_ns(), Ordering::Release);
            let executor = executor::make("sleeper", None).expect("an executor");
            executor.run(async {
                self.due_ns.store(AWAKE, Ordering::Release);
                self.sleep_for_a_while(end);
            });
            self.starts.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn sleep_for_a_while(&self, end: &AtomicBool) {
        let options =
            DriverOptions { sockets: 4, batch: 4, buffers: 4, accepts: 1, ..DriverOptions::default() };
        let mut driver = Driver::new(&options).expect("io_uring works on this machine");
        *self.waker.lock().unwrap() = Some(driver.waker());
        let is_last = self.starts.load(Ordering::Relaxed) + 1 == STARTS_MAX;
        for _ in 0..if is_last { u32::MAX } else { fastrand::u32(1..300) } {
            driver.begin_turn(Instant::now()).expect("the ring works");
            while driver.next_event(Instant::now()).expect("the ring works").is_some() {}
            burn(Duration::from_micros(fastrand::u64(0..300)));
            // As a shard: the driver first, then everything that could have woken it, then the sleep.
            let may_sleep = driver.may_sleep().expect("the ring works");
            let seen = self.published.load(Ordering::Acquire);
            if self.seen.swap(seen, Ordering::AcqRel) != seen || !may_sleep {
                continue;
            }
            if end.load(Ordering::Relaxed) {
                break;
            }
            self.sleep(&mut driver, seen);
        }
        *self.waker.lock().unwrap() = None;
    }

    fn sleep(&self, driver: &mut Driver, seen: u64) {
        let timeout = match fastrand::u32(0..10) {
            0..3 => LONG,
            _ => Duration::from_micros(fastrand::u64(0..50_000)),
        };
        let waited_before_ns = waited_ns("thread-self");
        let asleep_ns = self.now_ns();
        let due_ns = asleep_ns + timeout.as_nanos() as u64;
        self.waited_before_ns.store(waited_before_ns, Ordering::Relaxed);
        self.due_ns.store(due_ns, Ordering::Release);
        driver.sleep(timeout).expect("the ring works");
        let back_ns = self.now_ns();
        let due_ns = self.due_ns(seen).max(asleep_ns);
        self.due_ns.store(AWAKE, Ordering::Release);
        let waited_ns = waited_ns("thread-self") - waited_before_ns;
        let late_ns = back_ns.saturating_sub(due_ns).saturating_sub(waited_ns);
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        self.late_max_ns.fetch_max(late_ns, Ordering::Relaxed);
        assert!(
            late_ns < LATE_MAX.as_nanos() as u64,
            "{} ms late for a sleep of {timeout:?}, beyond the {} ms that it waited for a CPU",
            late_ns / 1_000_000,
            waited_ns / 1_000_000
        );
    }

    /// When it has to be back: at its deadline, or since it was woken for a message that it has not seen.
    fn due_ns(&self, seen: u64) -> u64 {
        let due_ns = self.due_ns.load(Ordering::Acquire);
        if due_ns != AWAKE && self.woken.load(Ordering::Acquire) > seen {
            return due_ns.min(self.woken_at_ns.load(Ordering::Acquire));
        }
        due_ns
    }

    /// Wakes it for a message, unless the last one was not seen yet: a wake-up that is lost must not be made good by the next.
    fn wake(&self) {
        let number = self.published.load(Ordering::Relaxed) + 1;
        let waker = self.waker.lock().unwrap().clone();
        let Some(waker) = waker.filter(|_| self.seen.load(Ordering::Acquire) + 1 == number) else { return };
        self.published.store(number, Ordering::Release);
        waker.wake();
        self.woken_at_ns.store(self.now_ns(), Ordering::Release);
        self.woken.store(number, Ordering::Release);
    }

    /// How long it has been overdue, beyond what it waited for a CPU.
    fn overdue(&self) -> Duration {
        let thread = self.thread.load(Ordering::Acquire);
        let due_ns = self.due_ns(self.seen.load(Ordering::Acquire));
        if thread == 0 || due_ns == AWAKE {
            return Duration::ZERO;
        }
        let waited_ns = waited_ns(&format!("self/task/{thread}"));
        let waited_ns = waited_ns.saturating_sub(self.waited_before_ns.load(Ordering::Relaxed));
        Duration::from_nanos(self.now_ns().saturating_sub(due_ns).saturating_sub(waited_ns))
    }
}

/// What a thread has waited for a CPU since it began: the second number of its schedstat.
fn waited_ns(thread: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{thread}/schedstat")).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn burn(time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Takes CPU in bursts, so that the number of threads that want one goes up and down.
fn burn_in_bursts(end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        burn(Duration::from_millis(fastrand::u64(0..30)));
        if fastrand::u32(0..4) == 0 {
            thread::sleep(Duration::from_millis(fastrand::u64(0..30)));
        }
    }
}

fn stress(lasts: Duration) {
    let began = Instant::now();
    let end = Arc::new(AtomicBool::new(false));
    let sleepers: Vec<_> = (0..SLEEPERS).map(|_| Arc::new(Sleeper::new(began))).collect();
    let mut threads = Vec::new();
    for sleeper in &sleepers {
        let (sleeper, end) = (Arc::clone(sleeper), Arc::clone(&end));
        threads.push(thread::spawn(move || sleeper.live(&end)));
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let burners: Vec<_> = (0..BURNERS_PER_CORE * cores)
        .map(|_| {
            let end = Arc::clone(&end);
            thread::spawn(move || burn_in_bursts(&end))
        })
        .collect();
    let (everyone, waker_end) = (sleepers.clone(), Arc::clone(&end));
    let waker = thread::spawn(move || {
        while !waker_end.load(Ordering::Relaxed) {
            everyone[fastrand::usize(0..SLEEPERS)].wake();
            thread::sleep(Duration::from_micros(fastrand::u64(0..2_000)));
        }
    });

    while began.elapsed() < lasts {
        thread::sleep(Duration::from_millis(500));
        for (number, sleeper) in sleepers.iter().enumerate() {
            let overdue = sleeper.overdue();
            assert!(overdue < LOST_AFTER, "sleeper {number} does not come back: overdue for {overdue:?}");
        }
        assert!(!threads.iter().any(thread::JoinHandle::is_finished), "a sleeper gave up: see above");
    }
    end.store(true, Ordering::Relaxed);
    waker.join().unwrap();
    while threads.iter().any(|thread| !thread.is_finished()) {
        assert!(began.elapsed() < lasts + 2 * LONG, "a sleeper does not hear that it is to end");
        sleepers.iter().for_each(|sleeper| sleeper.wake());
        thread::sleep(Duration::from_millis(10));
    }
    threads.into_iter().chain(burners).for_each(|thread| thread.join().unwrap());

    let sum = |count: fn(&Sleeper) -> &AtomicU64| -> u64 {
        sleepers.iter().map(|sleeper| count(sleeper).load(Ordering::Relaxed)).sum()
    };
    let late_max_ns = sleepers.iter().map(|sleeper| sleeper.late_max_ns.load(Ordering::Relaxed)).max();
    println!(
        "{} sleeps, {} wake-ups and {} starts of {SLEEPERS} executors on {cores} cores in {:.0} s; the latest was {} ms late \
         beyond what it waited for a CPU",
        sum(|sleeper| &sleeper.sleeps),
        sum(|sleeper| &sleeper.woken),
        sum(|sleeper| &sleeper.starts),
        began.elapsed().as_secs_f64(),
        late_max_ns.unwrap_or_default() / 1_000_000
    );
    for sleeper in &sleepers {
        assert!(sleeper.sleeps.load(Ordering::Relaxed) > 0, "one never slept");
        assert!(sleeper.woken.load(Ordering::Relaxed) > 0, "one was never woken");
    }
}

#[test]
fn no_sleep_outlasts_its_deadline_or_a_wake_up() {
    stress(Duration::from_secs(5));
}

#[test]
#[ignore = "takes all of the CPU, for two minutes or SLEEPS_SECONDS"]
fn no_sleep_outlasts_its_deadline_or_a_wake_up_however_little_cpu_there_is() {
    let seconds = std::env::var("SLEEPS_SECONDS").map_or(120, |seconds| seconds.parse().expect("a number"));
    stress(Duration::from_secs(seconds));
}
