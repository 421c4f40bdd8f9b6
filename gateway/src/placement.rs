//! Which CPU runs which shard.
//!
//! Only chooses; the executor of a shard pins itself. Honours the affinity mask that the process was started with (taskset,
//! a cgroup's cpuset). A CPU quota (WS_CPU_LIMIT) limits how many shards there are, not where they run.

/// Shards cannot be placed. Not recoverable: `main` prints it and exits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A shard that shares its CPU with another delays it by whole time slices.
    #[error(
        "{shards} shards need {shards} CPUs, but the process may use {cpus} ({allowed:?}): lower WS_SHARDS, widen its \
         affinity (taskset, cpuset), or set WS_PINNING=off"
    )]
    TooFewCpus {
        /// As many as were asked for.
        shards: usize,
        /// How many CPUs there are.
        cpus: usize,
        /// Which.
        allowed: Vec<usize>,
    },
}

/// The CPUs that the calling thread may run on, ascending. Empty where the kernel does not say.
pub fn allowed_cpus() -> Vec<usize> {
    let mut cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus
}

/// One CPU for each shard: the highest of those allowed.
///
/// What the kernel and the libraries place without being asked (interrupts, librdkafka's threads, the rest of the machine)
/// gathers on the lowest CPUs; and where hardware threads of one core are neighbours, the highest CPU is the farthest from them.
///
/// # Errors
/// There are fewer CPUs than shards.
pub fn choose(allowed: &[usize], shards: usize) -> Result<Vec<usize>, PlacementError> {
    let mut cpus = allowed.to_vec();
    cpus.sort_unstable();
    cpus.dedup();
    let left_to_others = cpus.len().checked_sub(shards).ok_or_else(|| PlacementError::TooFewCpus {
        shards,
        cpus: cpus.len(),
        allowed: cpus.clone(),
    })?;
    Ok(cpus.split_off(left_to_others))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_cpus_are_left_to_others_while_there_are_more_cpus_than_shards() {
        assert_eq!(choose(&[0, 1, 2, 3], 1), Ok(vec![3]));
        assert_eq!(choose(&[0, 1, 2, 3], 3), Ok(vec![1, 2, 3]));
        assert_eq!(choose(&[0, 1, 2, 3], 4), Ok(vec![0, 1, 2, 3]));
        assert_eq!(choose(&[0], 1), Ok(vec![0]));
    }

    #[test]
    fn only_allowed_cpus_are_chosen_each_once() {
        assert_eq!(choose(&[9, 4, 6, 9], 2), Ok(vec![6, 9]));
        assert!(choose(&[5, 5], 2).is_err());
    }

    #[test]
    fn too_few_cpus_are_an_error_that_names_them_and_the_remedy() {
        let text = choose(&[2, 5], 3).unwrap_err().to_string();
        for expected in ["3 shards", "[2, 5]", "WS_SHARDS", "WS_PINNING=off"] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn the_affinity_mask_of_the_thread_is_honoured() {
        std::thread::spawn(|| {
            let last = *allowed_cpus().last().expect("this thread runs on some CPU");
            assert!(core_affinity::set_for_current(core_affinity::CoreId { id: last }));
            assert_eq!(allowed_cpus(), [last]);
        })
        .join()
        .unwrap();
    }
}
