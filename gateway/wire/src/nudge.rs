//! A signal whose only effect is to end a system call, for a thread that does not return from one.
//!
//! SIGURG: it is ignored by default, so it ends no process that did not request it, and no code here reads urgent data.
#![allow(unsafe_code, reason = "sigaction(2) and tgkill(2) have no wrapper in std")]

use std::io;

const NUDGE: libc::c_int = libc::SIGURG;

/// Lets [`nudge`] interrupt system calls of this process's threads: an ignored signal interrupts none. Called once.
///
/// # Errors
/// sigaction(2) failed, which it does for no signal of this kind.
pub fn accept_nudges() -> io::Result<()> {
    extern "C" fn ignore(_signal: libc::c_int) {}

    // SAFETY: every bit pattern of zeros is a valid sigaction: no flags (so no SA_RESTART), an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: a valid sigaction, whose handler touches nothing: it is safe at any point of any thread.
    let result = unsafe { libc::sigaction(NUDGE, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends the signal to one thread of this process, by its number from gettid(2).
///
/// # Errors
/// There is no such thread in this process (`ESRCH`).
pub fn nudge(thread: i32) -> io::Result<()> {
    // SAFETY: integers only. The process is this one, so a wrong number can at worst reach another of its threads, on
    // which the signal has no effect.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, NUDGE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
