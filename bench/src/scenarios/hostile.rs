//! Attackers run recipes against one gateway, while a control gateway runs on the same CPU. The delays of
//! honest clients of both are measured at the same time.
//!
//! Each recipe gets a new attacked gateway, so that effects of one recipe do not appear in the next. A round
//! is an attack, the time until the bystanders' pings are answered, and a pause until the gateway has closed
//! the attackers' connections. Between rounds the memory and the descriptors of the gateway are read; the
//! control's memory grows by the same events.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{channel, with_environment};
use crate::args::{HostFlags, HostileArguments, TOKEN};
use crate::host::cluster::FETCH_WAIT_MS;
use crate::host::gateway::Gateway;
use crate::host::producer::{Producer, ProducerPlan};
use crate::hostile::attack::Attack;
use crate::hostile::bystander::Bystanders;
use crate::hostile::probe::Probe;
use crate::hostile::recipes::{RECIPES, Recipe};
use crate::machine;
use crate::report::hostile::{HostileResult, RecipeResult, Resources, Round};
use crate::run::RunError;
use crate::server::{Server, process};
use crate::testbed::{self, Testbed};

/// Events per second of the bystanders' channel.
const RATE: f64 = 20.0;
/// Number of other tokens, which attackers with wildcards receive, and their events per second after the
/// initial ones.
const OTHERS: usize = 300;
const OTHERS_RATE: f64 = 100.0;
const RETAINED: u64 = 12_000;
const RETAINED_RATE: f64 = 8_000.0;
const RETAINED_PATIENCE: Duration = Duration::from_secs(20);
const VALUE_BYTES: usize = 200;
/// Priority of the bystanders, as of nice(1).
const NICE: i32 = -10;
/// Sockets of all attackers together, with a reserve.
const SOCKETS: usize = 16_000;
/// Time that the bystanders are watched before the first round.
const CALM: Duration = Duration::from_millis(500);
/// Minimum time after an attack that is still measured.
const AFTERMATH: Duration = Duration::from_millis(300);
/// How long to wait for the gateway to close the attackers' connections.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// Interval between two reads of the gateway's descriptors.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// An allocator returns memory some time after it was freed.
const RELEASE: Duration = Duration::from_millis(500);

/// Runs all selected recipes, or those until `stop`.
pub fn run(arguments: &HostileArguments, stop: &AtomicBool) -> Result<HostileResult, RunError> {
    machine::allow_descriptors(SOCKETS, machine::DESCRIPTORS_BESIDES_HOSTED)?;
    // All topics, which is the gateway's default but not that of the other scenarios.
    let topics = ("KAFKA_TOPICS", String::new());
    let flags: HostFlags = with_environment(&arguments.host, FETCH_WAIT_MS, &[topics]);
    let testbed = Testbed::set_up(&flags, 0)?;
    let bootstrap = testbed.bootstrap().expect("a cluster is hosted or was given");
    let others =
        Producer::start(bootstrap, plan((1..=OTHERS).map(|n| format!("T{n}")).collect(), RETAINED_RATE))?;
    let began = Instant::now();
    while others.produced().acknowledged < RETAINED && began.elapsed() < RETAINED_PATIENCE {
        std::thread::sleep(LOOK_INTERVAL);
    }
    others.set_rate(OTHERS_RATE);
    let events = Producer::start(bootstrap, plan(vec![TOKEN.to_owned()], RATE))?;
    let mut hostility = HostileResult::new(arguments, &testbed);
    for recipe in RECIPES.iter().filter(|recipe| arguments.wants(recipe.name)) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let attacked =
            testbed.start_second_gateway()?.expect("`check` leaves no other way than to start one");
        hostility.lines.extend(run_recipe(
            recipe,
            arguments,
            &attacked,
            &testbed.server,
            &mut hostility.notes,
            stop,
        )?);
        testbed::stop_gateway(attacked)?;
    }
    drop((others, events));
    testbed.stop()?;
    hostility.judge(stop.load(Ordering::Relaxed));
    Ok(hostility)
}

fn plan(tokens: Vec<String>, rate_per_s: f64) -> ProducerPlan {
    ProducerPlan { rate_per_s, tokens, channel_header: None, partition: None, value_bytes: VALUE_BYTES }
}

/// Runs one recipe with each number of attackers.
fn run_recipe(
    recipe: &'static Recipe,
    arguments: &HostileArguments,
    attacked: &Gateway,
    control: &Server,
    notes: &mut Vec<String>,
    stop: &AtomicBool,
) -> Result<Vec<RecipeResult>, RunError> {
    let server = attacked.server();
    let targets = [server.target.clone(), control.target.clone()];
    // The priority is that of this thread; it is reset before the next gateway is started, which would
    // inherit it.
    if machine::set_nice(NICE).is_err() && notes.is_empty() {
        notes.push("The bystanders had no raised priority, which needs CAP_SYS_NICE: gaps include delays of the generator.".to_owned());
    }
    let mut bystanders = Bystanders::open(targets, channel(TOKEN))?;
    bystanders.watch_for(CALM)?;
    let mut lines = Vec::new();
    for attackers in &arguments.attackers {
        let mut rounds = Vec::new();
        let before = Resources::of(&server, control)?;
        let lost = missing(&bystanders);
        for _ in 0..arguments.rounds {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            rounds.push(round(
                recipe,
                usize::from(*attackers),
                arguments.duration,
                [&server, control],
                before,
                &mut bystanders,
            )?);
        }
        // Stopped before the first round.
        if rounds.is_empty() {
            break;
        }
        let lost = missing(&bystanders).saturating_sub(lost);
        let line = RecipeResult::of(recipe, *attackers, before, &rounds, lost);
        eprintln!("{}", line.summary());
        lines.push(line);
    }
    drop(bystanders);
    let _ = machine::set_nice(0);
    Ok(lines)
}

fn round(
    recipe: &'static Recipe,
    attackers: usize,
    duration: Duration,
    [attacked, control]: [&Server; 2],
    before: Resources,
    bystanders: &mut Bystanders,
) -> Result<Round, RunError> {
    let address: SocketAddr = attacked.target.resolve()?;
    let probe = Probe::start(address)?;
    let attack = Attack::start(recipe, &attacked.target, address, attackers, duration)?;
    let mut over_at = None;
    let delay = bystanders.watch(|| {
        if attack.is_finished() {
            over_at.get_or_insert_with(Instant::now);
        }
        over_at.is_some_and(|at: Instant| at.elapsed() >= AFTERMATH)
    })?;
    let effort = attack.finish();
    let health = probe.stop();
    let closed = bystanders.closed().map(str::to_owned);
    let end = Instant::now() + CLOSE_PATIENCE;
    let mut resources = Resources::of(attacked, control)?;
    while !resources.is_as_before(&before) && Instant::now() < end {
        bystanders.watch_for(LOOK_INTERVAL)?;
        resources = Resources { descriptors: process_descriptors(attacked)?, ..resources };
    }
    bystanders.watch_for(RELEASE)?;
    bystanders.reopen()?;
    Ok(Round { delay, effort, health, closed, resources: Resources::of(attacked, control)? })
}

fn process_descriptors(server: &Server) -> Result<u64, RunError> {
    let pid = server.pid.expect("it was started here");
    process::descriptors(pid).map_err(|error| RunError::Process { pid, error })
}

/// Events that the bystanders did not receive, or not in order, so far.
fn missing(bystanders: &Bystanders) -> u64 {
    let counts = bystanders.ledger.audit.counts_so_far();
    bystanders.ledger.audit.missing_so_far()
        + counts.lost
        + counts.duplicated
        + counts.reordered
        + bystanders.ledger.tally.gaps
}
