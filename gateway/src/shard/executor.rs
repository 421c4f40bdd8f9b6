//! glommio's executor as the threads of shards run it: pinned, and never parked.
//!
//! A shard is one task that is never pending: it sleeps on the driver's own ring, because glommio 0.9 cannot be trusted with a
//! sleep. Between its preemption timer and the next task it looks whether the timer has fired; if so it takes its queues for
//! empty, and with nothing else to wait for it parks the thread without any timer, even though a task is ready. A thread that gets
//! no CPU for the timer's 100 ms at that place does not run again until a signal comes. So the timer is put beyond the life of
//! the process: it exists to take turns between tasks, and there is one.

use std::time::Duration;

use glommio::{GlommioError, LocalExecutor, LocalExecutorBuilder, Placement};

/// The preemption timer's time.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// glommio's own buffers: files and sockets go through the driver.
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
