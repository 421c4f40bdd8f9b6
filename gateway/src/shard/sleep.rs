//! Waiting until the driver's eventfd is readable, or until a deadline.
//!
//! glommio 0.9 waits for its own sources only, not for a descriptor of somebody else. But its streams begin by polling their
//! descriptor, and only when it is readable call recv(2); on an eventfd the poll is what is wanted, and the recv answers
//! ENOTSOCK without touching the counter. A stream polls first only once, so each sleep has one of its own: a dup(2) and a
//! close(2), about a microsecond. Should glommio offer to wait for a descriptor, this file is all that changes.

use std::io;
use std::time::Instant;

use futures_lite::AsyncReadExt;
use futures_lite::future::or;
use glommio::net::UnixStream;
use glommio::timer::sleep;
use wire::Driver;

/// Waits until the driver is woken, or until `deadline`. To be called only when the driver says that it may sleep.
///
/// # Errors
/// No descriptor is left for the wait.
pub(super) async fn sleep_until(deadline: Instant, driver: &Driver) -> io::Result<()> {
    let mut readable: UnixStream = wire::duplicate_as(driver.wake_fd())?;
    let woken = async {
        // ENOTSOCK, when there is something to wake up for.
        let _ = readable.read(&mut [0]).await;
    };
    or(woken, async {
        sleep(deadline.saturating_duration_since(Instant::now())).await;
    })
    .await;
    Ok(())
}
