//! A signal that does nothing but end a system call: for a thread that should have come back from one.
//!
//! SIGURG: its default is to be ignored, so that it ends no process that did not ask for it, and nobody here reads urgent data.
#![allow(unsafe_code, reason = "sigaction(2) and tgkill(2) have no wrapper in std")]

use std::io;

const NUDGE: libc::c_int = libc::SIGURG;

/// Lets [`nudge`] interrupt system calls of this process's threads: a signal that is ignored interrupts none. Once.
///
/// # Errors
/// sigaction(2) refused, which it does for no signal of this kind.
pub fn accept_nudges() -> io::Result<()> {
    extern "C" fn ignore(_signal: libc::c_int) {}

    // SAFETY: every bit pattern of zeros is a valid sigaction: no flags (so no SA_RESTART), an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: a valid sigaction, whose handler touches nothing: it is safe at any point of any thread.
    let result = unsafe { libc::sigaction(NUDGE, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends the signal to one thread of this process, by its number as gettid(2) tells it.
///
/// # Errors
/// There is no such thread in this process (`ESRCH`).
pub fn nudge(thread: i32) -> io::Result<()> {
    // SAFETY: integers only. The process is this one, so the worst that a wrong number can reach is another of its threads,
    // which the signal does nothing to.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, NUDGE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
