//! The flush window: the minimum interval of event sends to one session.
//!
//! A send costs the same for one frame as for several, so under load fewer sends is the only large lever, and a short wait makes
//! a send carry several frames. The window is calculated forward from measurements, not found by trial: with a window `w`, each
//! of `n` sessions is sent to once per `w`, which costs `n * cost of a send / w`. Below 60% of the core there is no window (or
//! the one that WS_MAX_BROADCAST_RATE sets): latency first.
//!
//! Pure: time and readings are passed. The window stays between its minimum and its maximum, grows at once, and shrinks by at
//! most half per reading, so that a lull between two bursts does not undo it.

use std::time::Duration;

/// How often the window is calculated.
pub const READING_INTERVAL: Duration = Duration::from_millis(100);
/// Share of the core up to which every event could be sent on its own.
const SHARE_AT_EASE: f64 = 0.60;
/// Share below which a window is given up: lower than the one above, so that a load between them does not toggle it.
const SHARE_RELAXED: f64 = 0.50;
/// Share for which the window is chosen.
const SHARE_WANTED: f64 = 0.65;
/// Share of the core that is left for sending even if everything else takes more than [`SHARE_WANTED`].
const SHARE_OF_SENDS_MIN: f64 = 0.05;
/// If sending takes less than this share, a window would save nothing: the load is elsewhere.
const SHARE_WORTH_SAVING: f64 = 0.10;
/// Weight of the newest reading in the averages.
const WEIGHT: f64 = 0.5;
/// With fewer sends than this, their cost is not measurable.
const SENDS_MIN: u64 = 64;
/// A shrinking window ends here: it would save less than a turn of the loop takes anyway.
const SHORTEST: Duration = Duration::from_millis(8);

/// A shard's work since the previous reading.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadReading {
    /// Time since the previous reading.
    pub elapsed: Duration,
    /// Time spent in egress.
    pub sending: Duration,
    /// Time spent awake outside egress.
    pub other_work: Duration,
    /// Sends.
    pub sends: u64,
    /// Frames appended to outboxes: the number of sends without a window.
    pub frames: u64,
    /// Distinct sessions that are sent events.
    pub sessions: u64,
}

/// The window, and the averages from which it is calculated.
#[derive(Debug)]
pub struct FlushWindow {
    floor: Duration,
    longest: Duration,
    current: Duration,
    /// Averages. Shares are of one core.
    other_share: f64,
    frames_per_s: f64,
    send_s: f64,
}

impl FlushWindow {
    /// A window at its minimum. A maximum below the minimum is the minimum.
    pub fn new(floor: Duration, longest: Duration) -> Self {
        Self {
            floor,
            longest: longest.max(floor),
            current: floor,
            other_share: 0.0,
            frames_per_s: 0.0,
            send_s: 0.0,
        }
    }

    /// The window in force.
    pub fn current(&self) -> Duration {
        self.current
    }

    /// Calculates the window from a reading.
    pub fn update(&mut self, reading: &LoadReading) {
        let elapsed_s = reading.elapsed.as_secs_f64();
        if elapsed_s <= 0.0 {
            return;
        }
        average(&mut self.other_share, reading.other_work.as_secs_f64() / elapsed_s);
        average(&mut self.frames_per_s, reading.frames as f64 / elapsed_s);
        if reading.sends >= SENDS_MIN {
            let send_s = reading.sending.as_secs_f64() / reading.sends as f64;
            if self.send_s == 0.0 { self.send_s = send_s } else { average(&mut self.send_s, send_s) }
        }
        let wanted = self.wanted(reading.sessions).clamp(self.floor, self.longest);
        let least = self.current / 2;
        self.current = if wanted >= least {
            wanted
        } else if least > SHORTEST {
            least.max(self.floor)
        } else {
            self.floor
        };
    }

    fn wanted(&self, sessions: u64) -> Duration {
        let sending_share = self.send_s * self.frames_per_s;
        let is_open = self.current > self.floor;
        let share_at_ease = if is_open { SHARE_RELAXED } else { SHARE_AT_EASE };
        if self.other_share + sending_share <= share_at_ease || sending_share < SHARE_WORTH_SAVING {
            return self.floor;
        }
        let pass_s = self.send_s * sessions as f64;
        Duration::from_secs_f64(pass_s / (SHARE_WANTED - self.other_share).max(SHARE_OF_SENDS_MIN))
    }
}

fn average(average: &mut f64, newest: f64) {
    *average += WEIGHT * (newest - *average);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_millis(200);

    /// A model of a shard as a fluid: what it would measure in 100 ms under a load and a window.
    struct Shard {
        sessions: f64,
        /// Seconds of a send, and of each frame in it.
        send_s: f64,
        frame_s: f64,
        other_share: f64,
        random: fastrand::Rng,
    }

    impl Shard {
        fn new(seed: u64) -> Self {
            println!("seed {seed}");
            let random = fastrand::Rng::with_seed(seed);
            Self { sessions: 12_000.0, send_s: 3.5e-6, frame_s: 0.1e-6, other_share: 0.05, random }
        }

        fn noise(&mut self) -> f64 {
            0.9 + 0.2 * self.random.f64()
        }

        fn sends_per_s(&self, rate: f64, window: Duration) -> f64 {
            let frames_per_s = self.sessions * rate;
            let paced = match window.as_secs_f64() {
                0.0 => frames_per_s,
                window_s => frames_per_s.min(self.sessions / window_s),
            };
            // An overloaded core batches by itself.
            let possible = (1.0 - self.other_share - frames_per_s * self.frame_s).max(0.01) / self.send_s;
            paced.min(possible)
        }

        /// The share of the core that egress takes.
        fn sending_share(&self, rate: f64, window: Duration) -> f64 {
            self.sends_per_s(rate, window) * self.send_s + self.sessions * rate * self.frame_s
        }

        fn reading(&mut self, rate: f64, window: Duration) -> LoadReading {
            let elapsed_s = 0.1 * self.noise();
            let seconds = |share: f64| Duration::from_secs_f64(share * elapsed_s);
            let sending = seconds(self.sending_share(rate, window) * self.noise());
            let other_work = seconds(self.other_share * self.noise());
            let frames = self.sessions * rate * elapsed_s * self.noise();
            let per_epoch = rate * window.as_secs_f64().max(0.1);
            LoadReading {
                elapsed: Duration::from_secs_f64(elapsed_s),
                sending,
                other_work,
                sends: (self.sends_per_s(rate, window) * elapsed_s) as u64,
                frames: frames as u64,
                sessions: (self.sessions * per_epoch.min(1.0)) as u64,
            }
        }

        fn run(&mut self, window: &mut FlushWindow, rate: f64, seconds: f64) -> Vec<Duration> {
            let steps = (seconds * 10.0) as usize;
            (0..steps)
                .map(|_| {
                    let reading = self.reading(rate, window.current());
                    window.update(&reading);
                    window.current()
                })
                .collect()
        }
    }

    fn assert_steady(windows: &[Duration], what: &str) {
        let mean = windows.iter().sum::<Duration>() / windows.len() as u32;
        for window in windows {
            assert!(window.abs_diff(mean) <= mean.mul_f64(0.35), "{what}: {windows:?}");
        }
    }

    #[test]
    fn a_load_that_the_core_carries_never_waits() {
        let mut shard = Shard::new(fastrand::u64(..));
        let mut window = FlushWindow::new(Duration::ZERO, LONGEST);
        for rate in [0.0, 1.0, 5.0, 10.0] {
            assert!(shard.run(&mut window, rate, 5.0).iter().all(Duration::is_zero), "{rate}/s");
        }
    }

    #[test]
    fn after_a_step_the_window_settles_within_a_second_and_leaves_the_core_room() {
        let mut shard = Shard::new(fastrand::u64(..));
        for rate in [20.0, 25.0, 40.0, 60.0, 100.0] {
            let mut window = FlushWindow::new(Duration::ZERO, Duration::from_secs(2));
            shard.run(&mut window, 1.0, 2.0);
            let windows = shard.run(&mut window, rate, 6.0);
            assert_steady(&windows[10..], &format!("{rate}/s"));
            let busy = shard.other_share + shard.sending_share(rate, window.current());
            assert!((0.50..0.80).contains(&busy), "{rate}/s: {busy} of the core, {:?}", window.current());
        }
    }

    #[test]
    fn a_step_down_settles_within_a_second_too() {
        let mut shard = Shard::new(fastrand::u64(..));
        let mut window = FlushWindow::new(Duration::ZERO, LONGEST);
        shard.run(&mut window, 200.0, 3.0);
        assert!(window.current() > Duration::from_millis(80), "{:?}", window.current());
        assert_steady(&shard.run(&mut window, 25.0, 6.0)[10..], "25/s");
    }

    #[test]
    fn a_ramp_is_followed_without_reversals() {
        let mut shard = Shard::new(fastrand::u64(..));
        let mut window = FlushWindow::new(Duration::ZERO, Duration::from_secs(2));
        let means: Vec<_> = (0..20)
            .map(|step| {
                let windows = shard.run(&mut window, 5.0 + 5.0 * f64::from(step), 1.0);
                windows.iter().sum::<Duration>() / windows.len() as u32
            })
            .collect();
        for pair in means.windows(2) {
            assert!(pair[1] >= pair[0].mul_f64(0.85), "{means:?}");
        }
    }

    #[test]
    fn once_the_load_is_gone_the_window_is_at_its_floor_within_a_second() {
        let mut shard = Shard::new(fastrand::u64(..));
        for (floor_ms, rate) in [(0, 0.0), (0, 5.0), (40, 0.0), (40, 1.0)] {
            let floor = Duration::from_millis(floor_ms);
            let mut window = FlushWindow::new(floor, LONGEST);
            shard.run(&mut window, 300.0, 3.0);
            assert!(window.current() > Duration::from_millis(150), "{:?}", window.current());
            assert_eq!(shard.run(&mut window, rate, 1.0).last(), Some(&floor), "{rate}/s");
        }
    }

    #[test]
    fn a_burst_leaves_no_trace_after_a_second() {
        let mut shard = Shard::new(fastrand::u64(..));
        let mut window = FlushWindow::new(Duration::ZERO, LONGEST);
        for _ in 0..10 {
            shard.run(&mut window, 500.0, 0.1);
            let after = shard.run(&mut window, 2.0, 1.0);
            assert_eq!(after.last(), Some(&Duration::ZERO), "{after:?}");
        }
    }

    #[test]
    fn a_load_around_the_threshold_does_not_toggle_the_window() {
        let mut shard = Shard::new(fastrand::u64(..));
        let mut window = FlushWindow::new(Duration::ZERO, LONGEST);
        // 0.05 + 12,000 * 13/s * 3.6 us = 0.61.
        let windows = shard.run(&mut window, 13.0, 60.0);
        let openings = windows.windows(2).filter(|pair| pair[0].is_zero() && !pair[1].is_zero()).count();
        assert!(openings <= 3, "{openings} openings");
    }

    #[test]
    fn work_that_is_not_sending_opens_no_window() {
        let mut shard = Shard::new(fastrand::u64(..));
        shard.other_share = 0.95;
        let mut window = FlushWindow::new(Duration::ZERO, LONGEST);
        assert!(shard.run(&mut window, 1.0, 5.0).iter().all(Duration::is_zero));
    }

    #[test]
    fn the_window_stays_between_its_floor_and_its_maximum_whatever_is_read() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (floor, longest) = (Duration::from_millis(3), Duration::from_millis(90));
        let mut window = FlushWindow::new(floor, longest);
        for _ in 0..100_000 {
            let mut duration = || Duration::from_nanos(random.u64(..400_000_000));
            let reading = LoadReading {
                elapsed: duration(),
                sending: duration(),
                other_work: duration(),
                sends: random.u64(..1_000_000),
                frames: random.u64(..10_000_000),
                sessions: random.u64(..100_000),
            };
            window.update(&reading);
            assert!((floor..=longest).contains(&window.current()), "seed {seed}: {reading:?}");
        }
        assert_eq!(FlushWindow::new(longest, floor).longest, longest, "a floor above the maximum holds");
    }
}
