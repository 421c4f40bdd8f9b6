//! The real kernel: one io_uring with the buffers and addresses that the kernel writes to.
#![allow(unsafe_code, reason = "io_uring shares memory with the kernel")]

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::SockRef;

use crate::buffers::Buffers;
use crate::error::SetupError;
use crate::kernel::{Completion, Kernel, Request, Tag};

/// The only group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// IORING_ENTER_GETEVENTS: run deferred work, flush an overflow.
const ENTER_GETEVENTS: u32 = 1;

/// Enters of a drop: each runs at least 20 items of deferred work, and a ring holds at most three per socket.
const DEFERRED_ROUNDS_MAX: u32 = 200_000;

/// Where the kernel writes the address of one accepted peer.
struct AddressBuffer {
    storage: MaybeUninit<libc::sockaddr_storage>,
    length: libc::socklen_t,
}

/// Dropped in this order: the ring first, so that the kernel has let go of the memory that follows.
pub struct Uring {
    ring: IoUring,
    buffers: Buffers,
    buffers_taken: usize,
    /// Boxed: its address must not change while accepts are armed.
    addresses: Box<[AddressBuffer]>,
}

/// Sizes of an io_uring.
pub(crate) struct UringSizes {
    pub(crate) submissions: u32,
    pub(crate) completions: u32,
    pub(crate) buffers: u16,
    pub(crate) buffer_bytes: usize,
    pub(crate) accepts: usize,
}

impl Uring {
    pub(crate) fn new(sizes: &UringSizes) -> Result<Self, SetupError> {
        let ring = IoUring::builder()
            .setup_cqsize(sizes.completions)
            .setup_clamp()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .build(sizes.submissions)
            .map_err(SetupError::Ring)?;
        let addresses =
            (0..sizes.accepts).map(|_| AddressBuffer { storage: MaybeUninit::zeroed(), length: 0 }).collect();
        // Put together before anything is registered, so that a failure drops it all in the right order.
        let buffers = Buffers::new(sizes.buffers, sizes.buffer_bytes);
        let uring = Self { ring, buffers, buffers_taken: 0, addresses };
        let submitter = uring.ring.submitter();
        let (address, count) = (uring.buffers.ring_address(), uring.buffers.count());
        // SAFETY: the ring of buffers has `count` entries, lies on a page boundary, and outlives the io_uring (`drop`
        // ends what is armed, and the field order).
        unsafe { submitter.register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0) }
            .map_err(SetupError::Buffers)?;
        Ok(uring)
    }

    fn accept_entry(&mut self, listener: RawFd, index: usize) -> squeue::Entry {
        let address = &mut self.addresses[index];
        address.length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        opcode::Accept::new(Fd(listener), address.storage.as_mut_ptr().cast(), &raw mut address.length)
            .flags(libc::SOCK_CLOEXEC)
            .build()
    }

    fn address(&self, index: usize) -> Option<SocketAddr> {
        // SAFETY: every bit pattern is a valid sockaddr_storage, and it was zeroed before the kernel wrote to it.
        let storage = unsafe { self.addresses[index].storage.assume_init_ref() };
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says that the kernel wrote a sockaddr_in, which fits and is aligned in
                // sockaddr_storage.
                let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
                Some(SocketAddr::from((ip, u16::from_be(address.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: as above, with sockaddr_in6.
                let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
                let port = u16::from_be(address.sin6_port);
                // An IPv4 peer of a socket that takes both is one peer, however it reached us.
                if let Some(ip) = ip.to_ipv4_mapped() {
                    return Some(SocketAddr::from((ip, port)));
                }
                Some(SocketAddrV6::new(ip, port, address.sin6_flowinfo, address.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

impl Drop for Uring {
    /// Ends what is armed. A ring that is merely closed is taken down by the kernel in the background: its sockets and
    /// its port would stay open for a while, and its memory would be freed under requests that still name it.
    fn drop(&mut self) {
        // ENOENT: nothing was armed. After any other error it is left to the kernel, as above.
        let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
        for _ in 0..DEFERRED_ROUNDS_MAX {
            // SAFETY: nothing is submitted, and no argument block is passed.
            let entered =
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) };
            if entered.is_err() || !self.ring.submission().taskrun() {
                break;
            }
        }
    }
}

impl Kernel for Uring {
    fn room(&mut self) -> usize {
        let submissions = self.ring.submission();
        submissions.capacity() - submissions.len()
    }

    fn push(&mut self, tag: Tag, request: Request) {
        let entry = match request {
            Request::Accept { listener, index } => self.accept_entry(listener, index),
            Request::Receive { fd } => opcode::RecvMulti::new(Fd(fd), BUFFER_GROUP).build(),
            Request::Writable { fd } => opcode::PollAdd::new(Fd(fd), libc::POLLOUT as u32).build(),
            Request::Cancel { tag } => opcode::AsyncCancel::new(tag.0).build(),
            Request::Wake { fd } => opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build(),
        };
        // SAFETY: the only memory that such an entry refers to is an address buffer, which outlives the ring.
        unsafe { self.ring.submission().push(&entry.user_data(tag.0)) }
            .expect("the caller has asked for room");
    }

    unsafe fn push_send(&mut self, tag: Tag, fd: RawFd, bytes: &[u8]) {
        // The length field has 32 bits; what is cut off counts as a short send.
        let length = bytes.len().min(i32::MAX as usize) as u32;
        let entry = opcode::Send::new(Fd(fd), bytes.as_ptr(), length)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .build()
            .user_data(tag.0);
        // SAFETY: the caller keeps the bytes until the completion.
        unsafe { self.ring.submission().push(&entry) }.expect("the caller has asked for room");
    }

    fn enter(&mut self, wait: u32, run_deferred: bool) -> io::Result<usize> {
        let unsubmitted = self.unsubmitted() as u32;
        let flags = if run_deferred || wait > 0 { ENTER_GETEVENTS } else { 0 };
        // SAFETY: no argument block is passed; the queues' memory belongs to the ring.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(unsubmitted, wait, flags, None) }
    }

    /// With `IORING_ENTER_EXT_ARG` (Linux 5.11). The kernel runs what is deferred and looks at the completion queue before
    /// it waits; and if it took a request in the same call, the end of the time is no error.
    fn sleep(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec::from(timeout);
        self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)).map(drop)
    }

    fn unsubmitted(&mut self) -> usize {
        self.ring.submission().len()
    }

    fn has_deferred(&mut self) -> bool {
        let submissions = self.ring.submission();
        submissions.taskrun() || submissions.cq_overflow()
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        let buffer = cqueue::buffer_select(entry.flags());
        self.buffers_taken += usize::from(buffer.is_some());
        Some(Completion {
            tag: Tag(entry.user_data()),
            result: entry.result(),
            buffer,
            more: cqueue::more(entry.flags()),
        })
    }

    fn buffer(&self, buffer: u16, length: usize) -> &[u8] {
        self.buffers.bytes(buffer, length)
    }

    fn release(&mut self, buffer: u16) {
        self.buffers.give(buffer);
        self.buffers_taken -= 1;
    }

    fn buffers_taken(&self) -> usize {
        self.buffers_taken
    }

    fn adopt(&mut self, fd: RawFd, index: usize) -> (OwnedFd, Option<SocketAddr>) {
        let address = self.address(index);
        self.addresses[index].storage = MaybeUninit::zeroed();
        // SAFETY: `fd` is the result of an accept: newly opened, and this is the only place that takes it.
        (unsafe { OwnedFd::from_raw_fd(fd) }, address)
    }

    fn shutdown_write(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        SockRef::from(&fd).shutdown(std::net::Shutdown::Write)
    }

    fn reset_on_close(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        SockRef::from(&fd).set_linger(Some(Duration::ZERO))
    }

    fn connect_result(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        SockRef::from(&fd).take_error()?.map_or(Ok(()), Err)
    }

    fn close(&mut self, fd: OwnedFd) {
        drop(fd);
    }
}
