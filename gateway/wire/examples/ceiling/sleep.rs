//! Waiting for a driver, to the microsecond.

use std::io;
use std::time::{Duration, Instant};

use wire::Driver;

/// Sleeps until the driver has something, at the latest until `latest`.
pub(crate) fn sleep(driver: &mut Driver, latest: Instant) -> io::Result<()> {
    if !driver.may_sleep()? {
        return Ok(());
    }
    let latest = driver.next_deadline().map_or(latest, |deadline| deadline.min(latest));
    driver.sleep(latest.saturating_duration_since(Instant::now()).min(Duration::from_secs(1)))
}
