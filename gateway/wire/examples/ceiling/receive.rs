//! The receiving process: connects, counts the bytes of each connection until its FIN, and prints the counts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use wire::{Driver, DriverOptions, Event};

use crate::sleep::sleep;
use crate::{Arguments, pin};

/// Maximum pending connects: far below the listener's backlog.
const CONNECTS_MAX: u32 = 256;

/// One local address has about 28,000 ports.
const CONNECTIONS_PER_ADDRESS: u32 = 20_000;

pub(crate) fn run(arguments: &Arguments, address: SocketAddr) -> Result<(), String> {
    pin(arguments.receiver_cpu)?;
    let options = DriverOptions {
        sockets: arguments.connections as usize,
        buffers: 4096,
        buffer_bytes: 4096,
        ..DriverOptions::default()
    };
    let mut driver = Driver::new(&options).map_err(|error| error.to_string())?;
    let mut bytes = vec![0u64; arguments.connections as usize];
    let (mut begun, mut connected, mut closed) = (0, 0, 0);
    while closed < arguments.connections {
        while begun < arguments.connections && begun - connected < CONNECTS_MAX {
            let source =
                Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 2)) + begun / CONNECTIONS_PER_ADDRESS);
            driver.connect(address, Some((IpAddr::V4(source), 0).into())).map_err(|error| {
                format!("connection {begun}: {error}; is `ulimit -n` above the connections?")
            })?;
            begun += 1;
        }
        let now = Instant::now();
        driver.begin_turn(now).map_err(|error| error.to_string())?;
        let mut finished = Vec::new();
        while let Some(event) = driver.next_event(now).map_err(|error| error.to_string())? {
            match event {
                Event::Received { socket, bytes: received } => bytes[socket.slot()] += received.len() as u64,
                Event::Connected(_) => connected += 1,
                Event::PeerFinished(socket) => finished.push(socket),
                Event::Closed(_) => closed += 1,
                Event::Failed { error, .. } => return Err(format!("a connection broke: {error}")),
                Event::Accepted { .. } | Event::AcceptFailed(_) | Event::Writable(_) => {}
            }
        }
        for socket in finished {
            driver.close(socket, now);
        }
        let ramping = begun < arguments.connections && begun - connected < CONNECTS_MAX;
        let latest = if ramping { now } else { now + Duration::from_secs(1) };
        sleep(&mut driver, latest).map_err(|error| error.to_string())?;
    }
    let least = bytes.iter().min().expect("at least one connection");
    let most = bytes.iter().max().expect("at least one connection");
    println!("{} {least} {most}", bytes.iter().sum::<u64>());
    Ok(())
}
