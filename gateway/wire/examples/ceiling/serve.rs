//! The broadcasting process: a log of frames, a cursor into it per connection, and passes that send each connection all
//! frames that it lacks.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wire::{Driver, DriverOptions, Event, Outgoing, SendOutcome, SocketId, SocketOptions, listen};

use crate::report::{Measured, cpu_time};
use crate::sleep::sleep;
use crate::{Arguments, pin};

/// Sends between two polls of the ring.
pub(crate) const SLICE: usize = 512;

/// Duration of the same load before the measurement.
const WARM_UP: Duration = Duration::from_secs(1);

/// The receiver has failed after this long without a new connection.
const PATIENCE: Duration = Duration::from_secs(30);

/// Above this size the log is cleared once every client has all of it; a laggard may not hold back more.
pub(crate) const LOG_BYTES: usize = 64 << 20;

struct Client {
    socket: SocketId,
    /// The client's position in the log.
    cursor: usize,
    full: bool,
}

struct Broadcaster {
    driver: Driver,
    clients: Vec<Client>,
    /// The index in `clients`, by slot.
    places: Vec<usize>,
    log: Vec<u8>,
    /// The pass: clients still to visit, from `position` on.
    remaining: usize,
    position: usize,
    pass_begun: Instant,
    closed: usize,
    outcomes: Vec<SendOutcome>,
    measured: Measured,
    bytes_accepted: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    pin(arguments.cpu)?;
    let options =
        DriverOptions { sockets: arguments.connections as usize, batch: SLICE, ..DriverOptions::default() };
    let mut driver = Driver::new(&options).map_err(|error| error.to_string())?;
    let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), 4096, &SocketOptions::default())
        .map_err(|error| format!("listen: {error}"))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    driver.accept_from(listener);
    let mut receiver = spawn_receiver(arguments, &address.to_string())?;

    let mut broadcaster = Broadcaster::new(driver, arguments.connections as usize);
    let done = broadcaster
        .accept_all(arguments.connections as usize, &mut receiver)
        .and_then(|()| broadcaster.broadcast(arguments))
        .and_then(|frames| broadcaster.finish().map(|()| frames));
    let frames = done.inspect_err(|_| {
        // The receiver would wait for bytes forever.
        let _ = receiver.kill();
        let _ = receiver.wait();
    })?;
    let frame_bytes = frame(arguments.payload).len();
    check_receiver(receiver, &broadcaster, frames * frame_bytes as u64)?;
    broadcaster.measured.print(arguments, frame_bytes);
    Ok(())
}

impl Broadcaster {
    fn new(driver: Driver, connections: usize) -> Self {
        Self {
            driver,
            clients: Vec::with_capacity(connections),
            places: vec![0; connections],
            log: Vec::with_capacity(LOG_BYTES),
            remaining: 0,
            position: 0,
            pass_begun: Instant::now(),
            closed: 0,
            outcomes: Vec::new(),
            measured: Measured::default(),
            bytes_accepted: 0,
        }
    }

    fn accept_all(&mut self, connections: usize, receiver: &mut Child) -> Result<(), String> {
        let mut last = (Instant::now(), 0);
        while self.clients.len() < connections {
            let now = self.turn()?;
            if self.clients.len() > last.1 {
                last = (now, self.clients.len());
            } else {
                let exited = receiver.try_wait().map_err(|error| error.to_string())?.is_some();
                if exited || now > last.0 + PATIENCE {
                    return Err(format!("the receiver stopped at {} connections", self.clients.len()));
                }
            }
            sleep(&mut self.driver, now + Duration::from_millis(100)).map_err(|error| error.to_string())?;
        }
        self.driver.stop_accepting();
        Ok(())
    }

    /// Broadcasts at the requested rate; returns the number of frames.
    fn broadcast(&mut self, arguments: &Arguments) -> Result<u64, String> {
        let frame = frame(arguments.payload);
        let period = Duration::from_secs(1) / arguments.rate;
        let window = Duration::from_millis(arguments.window);
        let begun = Instant::now();
        let measured_from = begun + WARM_UP;
        let end = measured_from + Duration::from_secs(arguments.duration);
        let mut measuring: Option<(Instant, Duration)> = None;
        let (mut next_frame, mut frames) = (begun, 0);
        loop {
            let now = self.turn()?;
            if measuring.is_none() && now >= measured_from {
                measuring = Some((now, cpu_time()));
                self.measured = Measured::default();
            }
            if now >= end {
                break;
            }
            while next_frame <= now {
                if self.log.len() + frame.len() > LOG_BYTES {
                    self.empty_log()?;
                }
                self.log.extend_from_slice(&frame);
                next_frame += period;
                frames += 1;
            }
            let lacking =
                self.remaining == 0 && self.clients.iter().any(|client| client.cursor < self.log.len());
            if lacking && now >= self.pass_begun + window {
                self.pass_begun = now;
                self.remaining = self.clients.len();
            }
            if self.remaining > 0 {
                self.send_slice();
            } else {
                let latest = if lacking { next_frame.min(self.pass_begun + window) } else { next_frame };
                sleep(&mut self.driver, latest.min(end)).map_err(|error| error.to_string())?;
            }
        }
        let (from, cpu) = measuring.expect("the end lies after the warm-up");
        self.measured.wall = from.elapsed();
        self.measured.cpu = cpu_time() - cpu;
        Ok(frames)
    }

    /// Clears the log if every client has all of it.
    fn empty_log(&mut self) -> Result<(), String> {
        if self.remaining > 0 || self.clients.iter().any(|client| client.cursor < self.log.len()) {
            return Err(format!("the load is too high: a connection lags by {} MiB", LOG_BYTES >> 20));
        }
        self.log.clear();
        self.clients.iter_mut().for_each(|client| client.cursor = 0);
        Ok(())
    }

    /// Sends the next clients of the pass the frames that they lack.
    fn send_slice(&mut self) {
        let mut sends = Vec::with_capacity(SLICE);
        let mut places = Vec::with_capacity(SLICE);
        while self.remaining > 0 && sends.len() < SLICE {
            let client = &self.clients[self.position];
            if !client.full && client.cursor < self.log.len() {
                sends.push(Outgoing { socket: client.socket, bytes: &self.log[client.cursor..] });
                places.push(self.position);
            }
            self.position = (self.position + 1) % self.clients.len();
            self.remaining -= 1;
        }
        self.driver.send_batch(&sends, &mut self.outcomes);
        for (index, &place) in places.iter().enumerate() {
            let client = &mut self.clients[place];
            let accepted = match self.outcomes[index] {
                SendOutcome::Sent => sends[index].bytes.len(),
                SendOutcome::Full { accepted } => {
                    client.full = true;
                    self.measured.sends_full += 1;
                    self.driver.wait_writable(client.socket);
                    accepted
                }
                // Its `Failed` event also reports this, and ends the run.
                SendOutcome::Failed(_) | SendOutcome::Gone => 0,
            };
            client.cursor += accepted;
            self.measured.bytes += accepted as u64;
            self.bytes_accepted += accepted as u64;
        }
        self.measured.sends += sends.len() as u64;
        if self.remaining == 0 {
            self.measured.passes.push(self.pass_begun.elapsed());
        }
    }

    /// Sends the remaining frames and closes everything.
    fn finish(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.clients.iter().any(|client| client.cursor < self.log.len()) {
            let now = self.turn()?;
            if now > deadline {
                return Err("the receiver does not take the last bytes".to_owned());
            }
            // Outside the measured window: its counters are read already.
            let measured = std::mem::take(&mut self.measured);
            self.remaining = self.clients.len();
            while self.remaining > 0 {
                self.send_slice();
            }
            self.measured = measured;
            sleep(&mut self.driver, now + Duration::from_millis(10)).map_err(|error| error.to_string())?;
        }
        let now = Instant::now();
        for client in &self.clients {
            self.driver.close(client.socket, now);
        }
        while self.closed < self.clients.len() {
            let now = self.turn()?;
            sleep(&mut self.driver, now + Duration::from_millis(100)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<Instant, String> {
        let now = Instant::now();
        self.driver.begin_turn(now).map_err(|error| error.to_string())?;
        while let Some(event) = self.driver.next_event(now).map_err(|error| error.to_string())? {
            match event {
                Event::Accepted { socket, .. } => {
                    self.places[socket.slot()] = self.clients.len();
                    self.clients.push(Client { socket, cursor: 0, full: false });
                }
                Event::Writable(socket) => self.clients[self.places[socket.slot()]].full = false,
                Event::Closed(_) => self.closed += 1,
                Event::AcceptFailed(error) => {
                    return Err(format!("accept: {error}; is `ulimit -n` above the connections?"));
                }
                Event::Failed { error, .. } => return Err(format!("a connection broke: {error}")),
                Event::PeerFinished(_) => return Err("the receiver closed a connection".to_owned()),
                Event::Received { .. } | Event::Connected(_) => {}
            }
        }
        Ok(now)
    }
}

/// An unmasked binary WebSocket frame with a length of 16 bits.
fn frame(payload_bytes: u32) -> Vec<u8> {
    let mut frame = vec![0x82, 126];
    frame.extend((payload_bytes as u16).to_be_bytes());
    frame.resize(4 + payload_bytes as usize, b'x');
    frame
}

fn spawn_receiver(arguments: &Arguments, address: &str) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    Command::new(program)
        .args(["--connections", &arguments.connections.to_string()])
        .args(["--receiver-cpu", &arguments.receiver_cpu.to_string()])
        .args(["receive", "--address", address])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start the receiver: {error}"))
}

/// Checks that every connection got every byte: all the same number, and in total the number that the kernel accepted.
fn check_receiver(receiver: Child, broadcaster: &Broadcaster, bytes_each: u64) -> Result<(), String> {
    let output = receiver.wait_with_output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let counts: Vec<u64> = text.split_whitespace().filter_map(|count| count.parse().ok()).collect();
    let [all, least, most] = counts[..] else {
        return Err(format!("the receiver failed: {}", output.status));
    };
    if all != broadcaster.bytes_accepted || least != bytes_each || most != bytes_each {
        return Err(format!(
            "sent {} bytes, {bytes_each} to each connection; received {all}, from {least} to {most} on each",
            broadcaster.bytes_accepted
        ));
    }
    Ok(())
}
