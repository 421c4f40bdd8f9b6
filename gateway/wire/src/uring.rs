//! The real kernel: one io_uring with the buffers and addresses that the kernel writes to.
#![allow(unsafe_code, reason = "io_uring shares memory with the kernel")]

use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use socket2::SockRef;

use crate::buffers::{BufferId, Buffers, page_bytes};
use crate::error::SetupError;
use crate::kernel::is_transient;
use crate::kernel::{Completion, Kernel, Operation, Request, Tag};

/// The only group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// IORING_ENTER_GETEVENTS: run deferred work, flush an overflow.
const ENTER_GETEVENTS: u32 = 1;

/// Enters of a drop: each runs at least 20 items of deferred work, and a ring holds at most three per socket.
const DEFERRED_ROUNDS_MAX: u32 = 200_000;

/// Cancels of a drop. One is enough, except for requests that the kernel is executing when the cancel looks for them.
const ENDING_ROUNDS_MAX: u32 = 1_000;

/// The address of one accepted peer, written by the kernel.
struct AddressBuffer {
    storage: MaybeUninit<libc::sockaddr_storage>,
    length: libc::socklen_t,
}

/// Dropped manually: the ring first, and the memory that the kernel may write to only when it holds no more requests.
pub struct Uring {
    ring: ManuallyDrop<IoUring>,
    buffers: ManuallyDrop<Buffers>,
    /// Boxed: its address must not change while accepts are armed.
    addresses: ManuallyDrop<Box<[AddressBuffer]>>,
    /// Requests that were pushed and whose last completion is not taken yet.
    outstanding: usize,
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
        // Assembled before anything is registered, so that a failure drops everything in the right order.
        let uring = Self {
            ring: ManuallyDrop::new(ring),
            buffers: ManuallyDrop::new(Buffers::new(sizes.buffers, sizes.buffer_bytes, page_bytes())),
            addresses: ManuallyDrop::new(addresses),
            outstanding: 0,
        };
        let submitter = uring.ring.submitter();
        let (address, count) = (uring.buffers.ring_address(), uring.buffers.count());
        // SAFETY: the ring of buffers has `count` entries, lies on a page boundary, and outlives the io_uring (`drop` ends armed
        // requests, and the field order).
        unsafe { submitter.register_buf_ring_with_flags(address, count, BUFFER_GROUP, 0) }
            .map_err(SetupError::Buffers)?;
        Ok(uring)
    }

    fn accept_entry(&mut self, listener: BorrowedFd<'_>, index: usize) -> squeue::Entry {
        let address = &mut self.addresses[index];
        address.length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        opcode::Accept::new(
            Fd(listener.as_raw_fd()),
            address.storage.as_mut_ptr().cast(),
            &raw mut address.length,
        )
        .flags(libc::SOCK_CLOEXEC)
        .build()
    }

    fn address(&self, index: usize) -> Option<SocketAddr> {
        // SAFETY: every bit pattern is a valid sockaddr_storage, and it was zeroed before the kernel wrote to it.
        let storage = unsafe { self.addresses[index].storage.assume_init_ref() };
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family shows that the kernel wrote a sockaddr_in, which fits and is aligned in sockaddr_storage.
                let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
                Some(SocketAddr::from((ip, u16::from_be(address.sin_port))))
            }
            libc::AF_INET6 => {
                // SAFETY: as above, with sockaddr_in6.
                let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
                let port = u16::from_be(address.sin6_port);
                // An IPv4 peer of a dual-stack socket has one address, however it connected.
                if let Some(ip) = ip.to_ipv4_mapped() {
                    return Some(SocketAddr::from((ip, port)));
                }
                Some(SocketAddrV6::new(ip, port, address.sin6_flowinfo, address.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

impl Uring {
    /// Ends armed requests. Returns whether the kernel holds no more requests and so touches the ring's memory no more.
    fn end_requests(&mut self) -> bool {
        for _ in 0..ENDING_ROUNDS_MAX {
            while self.next_completion().is_some() {}
            // Requests that were never submitted give the kernel no memory.
            if self.outstanding == self.unsubmitted() {
                return true;
            }
            match self.ring.submitter().register_sync_cancel(None, CancelBuilder::any()) {
                Ok(()) => {}
                // Requests that the cancel did not find may be about to complete, or to be armed again.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EALREADY | libc::EINTR)) => {}
                Err(_) => return false,
            }
            if !self.run_deferred() {
                return false;
            }
        }
        false
    }

    /// Runs all deferred work and takes the resulting completions. Returns whether that is possible.
    fn run_deferred(&mut self) -> bool {
        for _ in 0..DEFERRED_ROUNDS_MAX {
            // SAFETY: nothing is submitted, and no argument block is passed.
            let entered =
                unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None) };
            match entered {
                Ok(_) => {}
                Err(error) if is_transient(&error) => {}
                Err(_) => return false,
            }
            while self.next_completion().is_some() {}
            if !self.has_deferred() {
                return true;
            }
        }
        false
    }
}

impl Drop for Uring {
    /// Ends armed requests. The kernel takes down a closed ring in the background: without this, the ring's sockets and port
    /// would stay open for a while, and its memory would be freed under requests that still refer to it. If the requests cannot
    /// be ended, the memory is leaked.
    fn drop(&mut self) {
        let has_ended = self.end_requests();
        // SAFETY: dropped here only, and not used below.
        unsafe { ManuallyDrop::drop(&mut self.ring) };
        if has_ended {
            // SAFETY: as above; and no request is left that refers to this memory.
            unsafe { ManuallyDrop::drop(&mut self.buffers) };
            // SAFETY: as above.
            unsafe { ManuallyDrop::drop(&mut self.addresses) };
        }
    }
}

impl Kernel for Uring {
    fn room(&mut self) -> usize {
        let submissions = self.ring.submission();
        submissions.capacity() - submissions.len()
    }

    fn push(&mut self, tag: Tag, request: Request<'_>) {
        let entry = match request {
            Request::Accept { listener, index } => self.accept_entry(listener, index),
            Request::Receive { fd } => opcode::RecvMulti::new(Fd(fd.as_raw_fd()), BUFFER_GROUP).build(),
            Request::Writable { fd } => {
                opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLOUT as u32).build()
            }
            Request::Cancel { tag } => opcode::AsyncCancel::new(tag.0).build(),
            Request::Wake { fd } => opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLIN as u32).build(),
        };
        // SAFETY: the only memory that such an entry refers to is an address buffer, which outlives the ring.
        unsafe { self.ring.submission().push(&entry.user_data(tag.0)) }
            .expect("the caller has asked for room");
        self.outstanding += 1;
    }

    unsafe fn push_send(&mut self, tag: Tag, fd: BorrowedFd<'_>, bytes: &[u8]) {
        // The length field has 32 bits; a truncated length counts as a short send.
        let length = bytes.len().min(i32::MAX as usize) as u32;
        let entry = opcode::Send::new(Fd(fd.as_raw_fd()), bytes.as_ptr(), length)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .build()
            .user_data(tag.0);
        // SAFETY: the caller keeps the bytes until the completion.
        unsafe { self.ring.submission().push(&entry) }.expect("the caller has asked for room");
        self.outstanding += 1;
    }

    fn enter(&mut self, wait: u32, run_deferred: bool) -> io::Result<usize> {
        let unsubmitted = self.unsubmitted() as u32;
        let flags = if run_deferred || wait > 0 { ENTER_GETEVENTS } else { 0 };
        // SAFETY: no argument block is passed; the queues' memory belongs to the ring.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(unsubmitted, wait, flags, None) }
    }

    /// Uses `IORING_ENTER_EXT_ARG` (Linux 5.11). The kernel runs deferred work and checks the completion queue before it waits;
    /// if it took a request in the same call, the timeout is no error.
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
        let (tag, result) = (Tag(entry.user_data()), entry.result());
        let more = cqueue::more(entry.flags());
        self.outstanding -= usize::from(!more);
        let is_accepted = tag.operation() == Some(Operation::Accept) && result >= 0;
        // SAFETY: the result of an accept: a new descriptor, and this is the only place that takes it.
        let accepted = is_accepted.then(|| unsafe { OwnedFd::from_raw_fd(result) });
        let buffer = cqueue::buffer_select(entry.flags()).map(|id| self.buffers.take(id));
        Some(Completion { tag, result, buffer, accepted, more })
    }

    fn buffer(&self, buffer: &BufferId, length: usize) -> &[u8] {
        self.buffers.bytes(buffer, length)
    }

    fn release(&mut self, buffer: BufferId) {
        self.buffers.give(buffer);
    }

    fn buffers_taken(&self) -> usize {
        self.buffers.taken()
    }

    fn take_peer(&mut self, index: usize) -> Option<SocketAddr> {
        let address = self.address(index);
        self.addresses[index].storage = MaybeUninit::zeroed();
        address
    }

    fn shutdown(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        SockRef::from(&fd).shutdown(std::net::Shutdown::Both)
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::buffers::FREED;

    const SIZES: UringSizes =
        UringSizes { submissions: 8, completions: 8, buffers: 4, buffer_bytes: 64, accepts: 1 };

    /// Operations that only tests use.
    struct Sent(Uring);

    // SAFETY: the ring's memory is its own; the kernel refuses requests of another thread, and the test checks this.
    unsafe impl Send for Sent {}

    impl Sent {
        /// Drops the ring. Returns whether its memory was freed.
        fn frees(self) -> bool {
            let before = FREED.get();
            drop(self.0);
            FREED.get() > before
        }
    }

    /// A ring with a receive on one end of a pair of sockets.
    fn armed() -> (Uring, UnixStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("two descriptors");
        let mut uring = Uring::new(&SIZES).expect("io_uring works on this machine");
        uring.push(Tag::new(Operation::Receive, 0, 0), Request::Receive { fd: ours.as_fd() });
        assert_eq!(uring.enter(0, true).expect("taken"), 1);
        (uring, ours, theirs)
    }

    /// Drops a ring on this thread or on another one, where nothing armed can be ended, because the kernel takes calls only from
    /// the thread that created the ring. Returns whether its memory was freed.
    fn is_freed(uring: Uring, here: bool) -> bool {
        let uring = Sent(uring);
        if here { uring.frees() } else { std::thread::spawn(move || uring.frees()).join().expect("drops") }
    }

    #[test]
    fn memory_is_freed_once_what_was_armed_has_ended() {
        let (uring, _ours, mut theirs) = armed();
        std::io::Write::write_all(&mut theirs, b"unread").expect("written");
        assert!(is_freed(uring, true));
    }

    #[test]
    fn memory_under_armed_requests_is_not_freed_if_they_cannot_be_ended() {
        let (uring, _ours, mut theirs) = armed();
        assert!(!is_freed(uring, false), "freed under an armed receive");
        // Reads into memory that is not freed.
        std::io::Write::write_all(&mut theirs, b"late").expect("written");
    }

    #[test]
    fn memory_that_no_request_names_is_freed_though_nothing_can_be_ended() {
        let uring = Uring::new(&SIZES).expect("io_uring works on this machine");
        assert!(is_freed(uring, false));
        let (mut uring, ours, theirs) = armed();
        drop(theirs);
        uring.enter(1, true).expect("the end of the stream");
        assert_eq!(uring.next_completion().expect("waited for").result, 0);
        // Pushed and never submitted.
        uring.push(Tag::new(Operation::Receive, 0, 0), Request::Receive { fd: ours.as_fd() });
        assert!(is_freed(uring, false));
    }

    #[test]
    fn a_connection_that_was_not_taken_is_closed_with_the_ring() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let mut uring = Uring::new(&SIZES).expect("io_uring works on this machine");
        let request = Request::Accept { listener: listener.as_fd(), index: 0 };
        uring.push(Tag::new(Operation::Accept, 0, 0), request);
        uring.enter(0, true).expect("taken");
        let mut peer = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("listens");
        peer.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        uring.enter(1, true).expect("accepted");
        assert!(is_freed(uring, true));
        assert_eq!(std::io::Read::read(&mut peer, &mut [0]).expect("a FIN"), 0);
    }
}
