//! The resources that the process may use, and the number of shards.
//!
//! Pure: measured values are passed in. [`crate::process::placement`] chooses the CPUs of shards.

use super::error::Fault;
use super::raw::Raw;
use super::reading::Reading;
use super::{Shards, table, units};
use crate::limits;
use crate::process::resource_limits::ResourceLimits;

/// The configured limits, otherwise the measured ones.
pub(crate) fn resource_limits(reading: &mut Reading, raw: &Raw, measured: ResourceLimits) -> ResourceLimits {
    let cpu_cores = reading.optional(
        &table::WS_CPU_LIMIT,
        raw.ws_cpu_limit.as_deref(),
        measured.cpu_cores,
        |text| units::decimal(text, &(limits::CPU_CORES_MIN..=limits::CPU_CORES_MAX)),
        f64::to_string,
    );
    let memory_bytes = reading.optional(
        &table::WS_MEMORY_LIMIT,
        raw.ws_memory_limit.as_deref(),
        measured.memory_bytes,
        |text| units::memory_bytes(text, &(limits::MEMORY_BYTES_MIN..=limits::MEMORY_BYTES_MAX)),
        |bytes| units::show_bytes(*bytes),
    );
    ResourceLimits { cpu_cores, memory_bytes }
}

/// The default is one shard for each core of the lower limit, because shards that share a core only get in each other's way. Under
/// --dev it is one, because each shard's idle consumer costs CPU.
pub(crate) fn shards(
    reading: &mut Reading,
    raw: &Raw,
    dev: bool,
    allocations: &[ResourceLimits],
    connections_max: usize,
) -> Shards {
    let cpu_cores =
        allocations.iter().filter_map(|resource_limits| resource_limits.cpu_cores).reduce(f64::min);
    let count = reading.optional(
        &table::WS_SHARDS,
        raw.ws_shards.as_deref(),
        Some(if dev { 1 } else { count_for(cpu_cores, connections_max) }),
        |text| units::number(text, &(1..=limits::SHARDS_MAX)),
        usize::to_string,
    );
    let count = count.expect("there is a fallback");
    let compared = [&table::WS_SHARDS, &table::WS_MAX_CONNECTIONS];
    if count > connections_max && reading.all_sound(&compared) {
        let reason = format!(
            "a shard needs a connection of its own; set it to {connections_max} or less, or WS_MAX_CONNECTIONS to {count} \
             or more"
        );
        reading.fault(Fault::of(table::WS_SHARDS.name, &count.to_string(), reason));
    }
    let pinning = reading.switch(&table::WS_PINNING, raw.ws_pinning.as_deref());
    Shards { count, pinning }
}

/// One shard for each whole core; one if the machine is unknown.
fn count_for(cpu_cores: Option<f64>, connections_max: usize) -> usize {
    let most = limits::SHARDS_MAX.min(connections_max);
    (cpu_cores.unwrap_or(1.0) as usize).clamp(1, most)
}
