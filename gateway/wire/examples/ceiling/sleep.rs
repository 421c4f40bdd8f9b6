//! Waiting for a driver's wake-up, to the microsecond.
#![allow(unsafe_code, reason = "ppoll(2) has no wrapper in std")]

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use wire::Driver;

/// Sleeps until the driver has something, at the latest until `latest`.
pub(crate) fn sleep(driver: &mut Driver, latest: Instant) -> io::Result<()> {
    if !driver.may_sleep()? {
        return Ok(());
    }
    let latest = driver.next_deadline().map_or(latest, |deadline| deadline.min(latest));
    let timeout = latest.saturating_duration_since(Instant::now()).min(Duration::from_secs(1));
    let mut poll = libc::pollfd { fd: driver.wake_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    // SAFETY: one valid pollfd and one timespec, borrowed for the call; no signal mask. An interrupted wait is a short
    // one.
    unsafe { libc::ppoll(&raw mut poll, 1, &raw const timeout, std::ptr::null()) };
    Ok(())
}
