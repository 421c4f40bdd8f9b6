//! The ceiling: how cheaply can this driver deliver, with no logic at all around it? One pinned thread broadcasts
//! frames to N loopback sockets; another process on another CPU receives and counts them.
//!
//! ```text
//! cargo run --release -p wire --example ceiling -- --connections 12000 --payload 256 --rate 5 --duration 10
//! ```
//!
//! The figure is the CPU time of the server process per delivery. Over loopback the receiver's TCP work runs on the
//! sender's CPU, and so is billed to the server, unless the kernel steers it away:
//! `echo 2 > /sys/class/net/lo/queues/rx-0/rps_cpus` (a bit mask of CPUs; 0 switches it off again).
//!
//! With `--listen` it serves real clients instead, until a signal, and measures nothing: `odin-bench compare --peer ceiling`
//! does.
//!
//! Exit code 1 when a connection got other bytes than all that were sent to it.

mod client;
mod open;
mod receive;
mod report;
mod serve;
mod sleep;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Clone, Debug, Parser)]
#[command(name = "ceiling", about = "CPU per delivery of a broadcaster without logic")]
struct Arguments {
    /// Loopback connections; both processes need as many descriptors and a few more.
    #[arg(long, default_value_t = 12_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Bytes of a frame's payload; its header adds 4. To real clients the envelope is a part of it.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    payload: u32,
    /// Broadcasts a second.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Least milliseconds between the beginnings of two passes over the connections.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    window: u64,
    /// Seconds that are measured, after one second of the same load.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    duration: u64,
    /// CPU of the server.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
    /// CPU of the receiver.
    #[arg(long, default_value_t = 1)]
    receiver_cpu: usize,
    /// The report as one JSON object.
    #[arg(long)]
    json: bool,
    /// Serves WebSocket clients at this address instead; the first channel that one asks for is broadcast.
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["duration", "receiver_cpu", "json"])]
    listen: Option<SocketAddr>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Clone, Debug, Subcommand)]
enum Role {
    /// The other process; started by the first.
    #[command(hide = true)]
    Receive {
        #[arg(long)]
        address: SocketAddr,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match (&arguments.role, arguments.listen) {
        (Some(Role::Receive { address }), _) => receive::run(&arguments, *address),
        (None, Some(address)) => open::run(&arguments, address),
        (None, None) => serve::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ceiling: {error}");
            ExitCode::FAILURE
        }
    }
}

fn pin(cpu: usize) -> Result<(), String> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: cpu }) {
        Ok(())
    } else {
        Err(format!("cannot run on CPU {cpu}: choose others with --cpu and --receiver-cpu"))
    }
}
