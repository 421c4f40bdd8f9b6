//! The sessions of a run in several processes: one process holds about 19,000, because of its limit of open
//! descriptors.
//!
//! Every process gets the same orders at the same instant. This process monitors the server, shows the
//! combined progress, and merges the results.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::worker::{Answer, Order, Share};
use super::{Mark, Plan, RunError, ServerMonitor, SessionResults, Window};
use crate::args::WORKER;
use crate::client::dialect::Dialect;
use crate::latency::Latency;
use crate::progress::{Phase, Progress};
use crate::snapshot::Snapshot;

const TICK: Duration = Duration::from_millis(50);
/// An order that waits for sessions is abandoned this long after it should have completed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Above this number of connections, each process connects from its own address.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 20_000;

/// The worker processes of a run.
pub struct Workers<'r> {
    window: Window,
    monitor: ServerMonitor,
    stop: &'r AtomicBool,
    is_stop_told: bool,
    children: Vec<Worker>,
    answers: Receiver<(usize, Answer)>,
    progress: Progress,
    phase: (Phase, Instant, Duration),
    connections: usize,
    /// The parent process measures no latencies; this stays empty.
    latency: Latency,
}

struct Worker {
    child: Child,
    input: ChildStdin,
    snapshot: Option<Snapshot>,
}

impl<'r> Workers<'r> {
    /// Starts the workers, each with its share of the sessions, on these CPUs in turn.
    pub fn start(
        plan: &Plan,
        dialect: Dialect,
        processes: usize,
        cpus: &[usize],
        monitor: ServerMonitor,
        stop: &'r AtomicBool,
    ) -> Result<Self, RunError> {
        let (send, answers) = channel();
        let mut children = Vec::new();
        let mut first = 0;
        for index in 0..processes {
            let connections =
                plan.connections / processes + usize::from(index < plan.connections % processes);
            let cpu = (!cpus.is_empty()).then(|| cpus[index % cpus.len()]);
            let share = share(plan, dialect, processes, &Assignment { index, first, connections, cpu });
            children.push(Worker::start(&share, index, send.clone())?);
            first += connections;
        }
        let now = Instant::now();
        let mut workers = Self {
            window: Window::begin(Mark::take(&monitor, 0)),
            monitor,
            stop,
            is_stop_told: false,
            children,
            answers,
            progress: Progress::new(now),
            phase: (Phase::Ramp, now, Duration::ZERO),
            connections: plan.connections,
            latency: Latency::default(),
        };
        workers.wait(PATIENCE)?;
        Ok(workers)
    }

    /// Opens the sessions.
    pub fn ramp(&mut self) -> Result<(), RunError> {
        self.window = Window::begin(self.mark());
        self.order(&Order::Ramp, Phase::Ramp, Duration::from_secs(3_600))
    }

    /// Handles received data without measuring.
    pub fn warm_up(&mut self, duration: Duration) -> Result<(), RunError> {
        self.order(&Order::WarmUp(duration), Phase::WarmUp, duration)
    }

    /// Measures.
    pub fn hold(&mut self, duration: Duration) -> Result<(), RunError> {
        self.window = Window::begin(self.mark());
        self.order(&Order::Hold(duration), Phase::Hold, duration)?;
        let end = self.mark();
        self.window.end(end, &mut self.latency);
        Ok(())
    }

    /// Waits for events in flight.
    pub fn grace(&mut self, patience: Duration) -> Result<(), RunError> {
        self.order(&Order::Grace(patience), Phase::Grace, patience)
    }

    /// The merged verdict of all processes.
    pub fn results(&mut self) -> Result<SessionResults, RunError> {
        self.progress.finish();
        self.tell(&Order::SessionResults)?;
        let mut all: Option<SessionResults> = None;
        for _ in 0..self.children.len() {
            let results = loop {
                match self.answer(PATIENCE)? {
                    Some((_, Answer::SessionResults(results))) => break *results,
                    Some(_) => {}
                    None => return Err(RunError::Worker("no results".to_owned())),
                }
            };
            all = Some(match all {
                None => results,
                Some(before) => before.merge(results),
            });
        }
        let mut all = all.expect("there is at least one process");
        // The workers do not monitor the server.
        for (sample, own) in all.samples.iter_mut().zip(self.window.samples()) {
            sample.server_cpu_cores = own.server_cpu_cores;
            sample.flush_window_ms = own.flush_window_ms;
            sample.frames_per_send = own.frames_per_send;
            sample.generator_cpu_cores += own.generator_cpu_cores;
        }
        all.generator_cpu += self.window.difference().generator_cpu;
        Ok(all)
    }

    /// Closes the sessions and ends the processes.
    pub fn close(mut self) -> Result<(), RunError> {
        self.tell(&Order::Close)?;
        self.wait(PATIENCE)
    }

    /// The measured window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The figures of this instant; deliveries are those of the last reports.
    pub fn mark(&self) -> Mark {
        Mark::take(&self.monitor, self.snapshot().delivered)
    }

    fn order(&mut self, order: &Order, phase: Phase, lasts: Duration) -> Result<(), RunError> {
        self.phase = (phase, Instant::now(), lasts);
        self.tell(order)?;
        self.wait(lasts + PATIENCE)
    }

    fn tell(&mut self, order: &Order) -> Result<(), RunError> {
        let mut line = serde_json::to_vec(order).expect("an order is plain");
        line.push(b'\n');
        for worker in &mut self.children {
            worker.input.write_all(&line).map_err(|error| RunError::Worker(error.to_string()))?;
        }
        Ok(())
    }

    /// Waits until every process has carried out its order.
    fn wait(&mut self, patience: Duration) -> Result<(), RunError> {
        let end = Instant::now() + patience;
        let mut done = 0;
        while done < self.children.len() {
            if Instant::now() > end {
                return Err(RunError::Worker("an order was not carried out".to_owned()));
            }
            if self.stop.load(Ordering::Relaxed) && !self.is_stop_told {
                self.is_stop_told = true;
                self.tell(&Order::Stop)?;
            }
            match self.answer(TICK)? {
                Some((_, Answer::Done)) => done += 1,
                Some((index, Answer::Progress(snapshot))) => self.children[index].snapshot = Some(snapshot),
                Some((_, Answer::SessionResults(_))) | None => {}
                Some((_, Answer::Failed(_))) => unreachable!("`answer` makes it an error"),
            }
            self.show();
        }
        Ok(())
    }

    fn answer(&mut self, patience: Duration) -> Result<Option<(usize, Answer)>, RunError> {
        match self.answers.recv_timeout(patience) {
            Ok((_, Answer::Failed(why))) => Err(RunError::Worker(why)),
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(RunError::Worker("all have ended".to_owned())),
        }
    }

    fn show(&mut self) {
        let now = Instant::now();
        if now >= self.window.sample_due_at() {
            let mark = self.mark();
            self.window.sample(mark, &mut self.latency);
        }
        if now >= self.progress.due_at() {
            let snapshot = self.snapshot();
            self.progress.show(now, self.phase.0, &snapshot);
        }
    }

    fn snapshot(&self) -> Snapshot {
        let (phase, began, lasts) = self.phase;
        let reports = self.children.iter().filter_map(|worker| worker.snapshot.as_ref());
        let mut sum =
            Snapshot { server: self.monitor.describe(self.window.newest_sample()), ..Snapshot::default() };
        for snapshot in reports {
            sum.done += snapshot.done;
            sum.active += snapshot.active;
            sum.lost_sessions += snapshot.lost_sessions;
            sum.delivered += snapshot.delivered;
            sum.latency_ms = match (sum.latency_ms, snapshot.latency_ms) {
                (Some(one), Some(other)) => Some(one.worse(other)),
                (one, other) => one.or(other),
            };
        }
        if phase == Phase::Ramp {
            sum.total = self.connections as u64;
        } else {
            sum.total = lasts.as_secs();
            sum.done = began.elapsed().as_secs().min(sum.total);
        }
        sum
    }
}

/// The share of one of the processes.
struct Assignment {
    index: usize,
    first: usize,
    connections: usize,
    cpu: Option<usize>,
}

fn share(plan: &Plan, dialect: Dialect, processes: usize, place: &Assignment) -> Share {
    let mut channels: Vec<String> = plan.channels.iter().map(|name| name.as_str().to_owned()).collect();
    // Across processes, sessions take the channels in the same turn as in one process.
    let turn = place.first % channels.len().max(1);
    channels.rotate_left(turn);
    let is_loopback =
        plan.target.resolve().is_ok_and(|address| matches!(address.ip(), IpAddr::V4(ip) if ip.is_loopback()));
    let mut sources = plan.sources.clone();
    if sources.is_empty() && is_loopback && plan.connections > CONNECTIONS_PER_ADDRESS_MAX {
        sources = vec![Ipv4Addr::new(127, 0, 0, place.index as u8 + 1).into()];
    }
    Share {
        url: format!("ws://{}{}", plan.target.authority, plan.target.path),
        dialect,
        connections: place.connections,
        ramp_rate: plan.ramp_rate / processes as f64,
        timeout: plan.timeout,
        sources,
        channels,
        cpu: place.cpu,
    }
}

impl Worker {
    fn start(share: &Share, index: usize, answers: Sender<(usize, Answer)>) -> Result<Self, RunError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(WORKER).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().expect("it was piped");
        let output = child.stdout.take().expect("it was piped");
        let mut line = serde_json::to_vec(share).expect("a share is plain");
        line.push(b'\n');
        input.write_all(&line)?;
        thread::Builder::new().name("answers".to_owned()).spawn(move || {
            for line in BufReader::new(output).lines() {
                let answer = line
                    .map_err(|error| error.to_string())
                    .and_then(|line| serde_json::from_str(&line).map_err(|error| format!("{error}: {line}")));
                if answers.send((index, answer.unwrap_or_else(Answer::Failed))).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { child, input, snapshot: None })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A worker that has finished exits by itself; otherwise it is killed without waiting.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
