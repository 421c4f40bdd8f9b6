//! glommio's executor for the threads of shards: pinned, and never parked.
//!
//! A shard is one task that is never pending: it sleeps on the driver's own ring, because glommio 0.9 can lose a wake-up. Between
//! its preemption timer and the next task, glommio checks whether the timer has fired. If so, it considers its queues empty, and
//! with nothing else to wait for it parks the thread without a timer, even though a task is ready. A thread that gets no CPU for
//! the timer's 100 ms at that place does not run again until a signal arrives. So the timer is set beyond the life of the
//! process: it exists to alternate between tasks, and there is only one.

use std::time::Duration;

use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement};

/// The time of the preemption timer.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// glommio's own buffers, which are not used: sockets go through the driver.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// Makes an executor for the calling thread, and pins the thread.
///
/// # Errors
/// The limit of locked memory is low, io_uring is refused, or there is no such CPU.
pub fn make(name: &str, cpu: Option<usize>) -> Result<LocalExecutor, GlommioError<()>> {
    LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
        .name(name)
        .io_memory(IO_MEMORY_BYTES)
        .preempt_timer(NEVER)
        .make()
}
