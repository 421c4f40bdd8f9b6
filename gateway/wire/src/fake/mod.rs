//! A kernel for the fault tests: it answers with the results that a test requests, in any order, and checks that the driver
//! keeps its contract. Descriptors are real (of /dev/null or of sockets), requests on them are not.
//!
//! Checked at every call: a descriptor closes only when no request refers to it; a buffer is returned exactly once, and is
//! read only before that; a request is armed once, on an open descriptor, for the newest generation of its slot; no receive
//! is armed while a cancel of one of its socket is in flight; at most one send per descriptor is in flight; nothing is pushed
//! beyond the room; no sleep begins without a poll of the waker.
#![allow(unsafe_code, reason = "implements the one unsafe method, and poll(2)")]

mod cancels;
mod script;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

pub(crate) use self::cancels::LATE;
pub(crate) use self::script::{Cancel, Enter, Script, Send, Sleep};
use crate::buffers::BufferId;
use crate::kernel::{Completion, Kernel, Operation, Request, Tag};
use crate::sockets::SocketId;

/// A request that waits to be submitted.
enum Pushed {
    Armed(RawFd),
    Cancel(Tag),
    Wake(RawFd),
    Send { fd: RawFd, bytes: Vec<u8> },
}

pub(crate) struct Fake {
    pub(crate) script: Script,
    /// All bytes that sends accepted, by descriptor.
    pub(crate) sent: HashMap<RawFd, Vec<u8>>,
    /// Descriptors that were closed, and those closed with a reset.
    pub(crate) closed: Vec<RawFd>,
    pub(crate) resets: HashSet<RawFd>,
    /// Requests that were pushed, sends included.
    pub(crate) pushes: usize,
    /// The number of deferred items that one enter runs.
    pub(crate) deferred_per_enter: usize,
    pub(crate) completions_max: usize,
    /// Bytes that arrived while a cancel looked for their receive, until a test takes them.
    pub(crate) late_bytes: Vec<SocketId>,
    /// Sockets that were shut down in both directions.
    pub(crate) shutdowns: usize,
    /// Sleeps that began, and sleeps that timed out.
    pub(crate) slept: usize,
    pub(crate) overslept: usize,
    /// The poll of the waker's descriptor, while it is armed.
    wake: Option<(Tag, RawFd)>,
    submissions: VecDeque<(Tag, Pushed)>,
    submissions_max: usize,
    /// Requests in the kernel. Ordered, so that a seed gives the same run each time.
    armed: BTreeMap<u64, RawFd>,
    completions: VecDeque<Completion>,
    /// Completions that only an enter for deferred work brings: posted later, or overflowed.
    deferred: VecDeque<Completion>,
    /// Sends that complete only when the driver waits.
    late: Vec<Completion>,
    sends_in_flight: HashSet<RawFd>,
    /// Sockets with a cancel of their receive whose completion is not taken yet.
    receives_in_cancel: HashSet<SocketId>,
    buffers_free: Vec<u16>,
    buffers_out: HashSet<usize>,
    contents: Vec<Vec<u8>>,
    adopted: HashSet<RawFd>,
    open: HashMap<RawFd, SocketId>,
    generations_closed: HashMap<usize, SocketId>,
}

impl Fake {
    pub(crate) fn new(submissions_max: usize, buffers: u16) -> Self {
        Self {
            script: Script::default(),
            sent: HashMap::new(),
            closed: Vec::new(),
            resets: HashSet::new(),
            pushes: 0,
            deferred_per_enter: 20,
            completions_max: 1024,
            late_bytes: Vec::new(),
            shutdowns: 0,
            slept: 0,
            overslept: 0,
            wake: None,
            submissions: VecDeque::new(),
            submissions_max,
            armed: BTreeMap::new(),
            completions: VecDeque::new(),
            deferred: VecDeque::new(),
            late: Vec::new(),
            sends_in_flight: HashSet::new(),
            receives_in_cancel: HashSet::new(),
            buffers_free: (0..buffers).collect(),
            buffers_out: HashSet::new(),
            contents: vec![Vec::new(); usize::from(buffers)],
            adopted: HashSet::new(),
            open: HashMap::new(),
            generations_closed: HashMap::new(),
        }
    }

    /// The number of armed requests of a kind.
    pub(crate) fn armed(&self, operation: Operation) -> Vec<Tag> {
        self.armed.keys().map(|&tag| Tag(tag)).filter(|tag| tag.operation() == Some(operation)).collect()
    }

    pub(crate) fn is_armed(&self, tag: Tag) -> bool {
        self.armed.contains_key(&tag.0)
    }

    pub(crate) fn buffers_free(&self) -> usize {
        self.buffers_free.len()
    }

    /// A peer connects: completes an armed accept.
    pub(crate) fn peer_connects(&mut self) {
        let tag = self.armed(Operation::Accept)[0];
        let fd: OwnedFd = File::open("/dev/null").expect("always there").into();
        let raw = fd.as_raw_fd();
        self.complete(tag, raw, None, false);
        self.deferred.back_mut().expect("pushed above").accepted = Some(fd);
    }

    /// Bytes arrive on a socket with an armed receive, which stays armed or not. Without a free buffer the receive ends with
    /// ENOBUFS, and the test loses the bytes.
    pub(crate) fn bytes_arrive(&mut self, socket: SocketId, bytes: &[u8], more: bool) {
        let tag = socket.tag(Operation::Receive);
        assert!(self.is_armed(tag), "a receive is armed");
        match self.buffers_free.pop() {
            Some(buffer) => {
                self.contents[usize::from(buffer)] = bytes.to_vec();
                self.complete(tag, bytes.len() as i32, Some(buffer), more);
            }
            None => self.complete(tag, -libc::ENOBUFS, None, false),
        }
    }

    /// An armed request ends with this result.
    pub(crate) fn end(&mut self, tag: Tag, result: i32) {
        assert!(self.is_armed(tag), "{:?} is armed", tag.operation());
        self.complete(tag, result, None, false);
    }

    /// Adds a completion without a request.
    pub(crate) fn stray(&mut self, tag: Tag, result: i32, buffer: Option<u16>) {
        self.deferred.push_back(completion(tag, result, buffer, false));
    }

    pub(crate) fn take_free_buffer(&mut self) -> u16 {
        self.buffers_free.pop().expect("a free buffer")
    }

    /// Checks that every buffer is returned, every descriptor closed, and nothing waits.
    pub(crate) fn assert_idle(&self) {
        assert!(self.armed.is_empty(), "{} requests are armed", self.armed.len());
        assert!(self.submissions.is_empty() && self.completions.is_empty() && self.deferred.is_empty());
        assert!(self.open.is_empty(), "open: {:?}", self.open);
        assert!(self.adopted.is_empty(), "adopted and not closed: {:?}", self.adopted);
        assert!(self.buffers_out.is_empty(), "buffers out: {:?}", self.buffers_out);
        assert_eq!(self.buffers_free.len(), self.contents.len());
    }

    fn complete(&mut self, tag: Tag, result: i32, buffer: Option<u16>, more: bool) {
        if !more {
            self.armed.remove(&tag.0);
        }
        self.deferred.push_back(completion(tag, result, buffer, more));
    }

    fn submit(&mut self, tag: Tag, pushed: Pushed) {
        match pushed {
            Pushed::Cancel(target) => self.cancel(tag, target),
            Pushed::Armed(fd) => {
                assert!(self.armed.insert(tag.0, fd).is_none(), "armed twice: {tag:?}");
            }
            Pushed::Wake(fd) => {
                assert!(self.wake.replace((tag, fd)).is_none(), "the waker is polled twice");
            }
            Pushed::Send { fd, bytes } => self.send(tag, fd, &bytes),
        }
    }

    /// Takes requests as scripted.
    fn submit_all(&mut self) -> io::Result<usize> {
        let take = match self.script.enters.pop_front() {
            Some(Enter::Fails(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Enter::Takes(count)) => count.min(self.submissions.len()),
            None => self.submissions.len(),
        };
        for _ in 0..take {
            let (tag, pushed) = self.submissions.pop_front().expect("counted above");
            self.submit(tag, pushed);
        }
        Ok(take)
    }

    /// The poll of the waker completes once the waker was called, whether before or after the poll was armed.
    fn look_at_waker(&mut self) {
        if let Some((tag, fd)) = self.wake
            && is_readable(fd)
        {
            self.end_wake(tag, i32::from(libc::POLLIN));
        }
    }

    fn end_wake(&mut self, tag: Tag, result: i32) {
        self.wake = None;
        self.deferred.push_back(completion(tag, result, None, false));
    }

    fn send(&mut self, tag: Tag, fd: RawFd, bytes: &[u8]) {
        let answer = self.script.sends.pop_front().unwrap_or(Send::Takes(usize::MAX));
        let result = match answer {
            Send::Takes(length) => length.min(bytes.len()) as i32,
            Send::Later => bytes.len() as i32,
            Send::Fails(errno) => -errno,
        };
        if result > 0 {
            self.sent.entry(fd).or_default().extend(&bytes[..result as usize]);
        }
        self.sends_in_flight.remove(&fd);
        let completion = completion(tag, result, None, false);
        match answer {
            Send::Later => self.late.push(completion),
            _ if self.completions.len() < self.completions_max => self.completions.push_back(completion),
            _ => self.deferred.push_back(completion),
        }
    }

    fn run_deferred(&mut self) {
        for _ in 0..self.deferred_per_enter {
            if self.completions.len() == self.completions_max {
                return;
            }
            let Some(completion) = self.deferred.pop_front() else { return };
            self.completions.push_back(completion);
        }
    }

    fn names(&self, fd: RawFd) -> bool {
        let pushed = |pushed: &Pushed| match *pushed {
            Pushed::Cancel(_) | Pushed::Wake(_) => false,
            Pushed::Armed(named) | Pushed::Send { fd: named, .. } => named == fd,
        };
        self.armed.values().any(|&named| named == fd)
            || self.submissions.iter().any(|(_, entry)| pushed(entry))
    }

    /// Checks a request on a socket: its descriptor is open, and its generation is the newest of its slot.
    fn check_socket(&mut self, tag: Tag, fd: RawFd) {
        let socket = SocketId::of(tag);
        let known = *self.open.entry(fd).or_insert(socket);
        assert_eq!(known, socket, "a request on somebody else's descriptor");
        assert_ne!(
            self.generations_closed.get(&socket.slot()),
            Some(&socket),
            "a request for a closed socket"
        );
    }
}

impl Kernel for Fake {
    fn room(&mut self) -> usize {
        self.submissions_max - self.submissions.len()
    }

    fn push(&mut self, tag: Tag, request: Request<'_>) {
        assert!(self.room() > 0, "pushed without room");
        self.check_cancels(tag);
        let pushed = match request {
            Request::Receive { fd } | Request::Writable { fd } => {
                self.check_socket(tag, fd.as_raw_fd());
                Pushed::Armed(fd.as_raw_fd())
            }
            Request::Accept { listener, .. } => Pushed::Armed(listener.as_raw_fd()),
            Request::Cancel { tag } => Pushed::Cancel(tag),
            Request::Wake { fd } => Pushed::Wake(fd.as_raw_fd()),
        };
        self.pushes += 1;
        self.submissions.push_back((tag, pushed));
    }

    unsafe fn push_send(&mut self, tag: Tag, fd: BorrowedFd<'_>, bytes: &[u8]) {
        let fd = fd.as_raw_fd();
        assert!(self.room() > 0, "pushed without room");
        let open = self.open.contains_key(&fd) || self.adopted.contains(&fd);
        assert!(open, "a send on a descriptor that is not open");
        assert!(self.sends_in_flight.insert(fd), "two sends of one socket");
        self.pushes += 1;
        self.submissions.push_back((tag, Pushed::Send { fd, bytes: bytes.to_vec() }));
    }

    fn enter(&mut self, wait: u32, run_deferred: bool) -> io::Result<usize> {
        let take = self.submit_all()?;
        if wait > 0 {
            // One at a time, in reverse order: the slowest possible kernel.
            self.completions.extend(self.late.pop());
        }
        if run_deferred || wait > 0 {
            self.run_deferred();
        }
        assert!(wait == 0 || !self.completions.is_empty(), "this would wait for ever");
        Ok(take)
    }

    fn sleep(&mut self, _timeout: Duration) -> io::Result<()> {
        self.submit_all()?;
        if !self.submissions.is_empty() {
            // A short count: the kernel does not wait.
            return Ok(());
        }
        self.look_at_waker();
        self.run_deferred();
        if !self.completions.is_empty() {
            return Ok(());
        }
        assert!(self.wake.is_some(), "asleep, and no other thread can end it");
        self.slept += 1;
        match self.script.sleeps.pop_front() {
            Some(Sleep::Woken(waker)) => waker.wake(),
            Some(Sleep::Completes(tag, result)) if tag.operation() == Some(Operation::Wake) => {
                self.end_wake(tag, result);
            }
            Some(Sleep::Completes(tag, result)) => self.end(tag, result),
            Some(Sleep::Signal) => return Err(io::Error::from_raw_os_error(libc::EINTR)),
            None => {
                self.overslept += 1;
                return Err(io::Error::from_raw_os_error(libc::ETIME));
            }
        }
        self.look_at_waker();
        self.run_deferred();
        assert!(!self.completions.is_empty(), "asleep for ever");
        Ok(())
    }

    fn unsubmitted(&mut self) -> usize {
        self.submissions.len()
    }

    fn has_deferred(&mut self) -> bool {
        self.look_at_waker();
        !self.deferred.is_empty()
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let completion = self.completions.pop_front()?;
        if let Some(buffer) = &completion.buffer {
            assert!(self.buffers_out.insert(buffer.index()), "one buffer in two completions");
        }
        if completion.tag.operation() == Some(Operation::CancelReceive) {
            self.receives_in_cancel.remove(&SocketId::of(completion.tag));
        }
        if let Some(fd) = &completion.accepted {
            self.adopted.insert(fd.as_raw_fd());
        }
        Some(completion)
    }

    fn buffer(&self, buffer: &BufferId, length: usize) -> &[u8] {
        assert!(self.buffers_out.contains(&buffer.index()), "read a buffer that the kernel has");
        &self.contents[buffer.index()][..length]
    }

    fn release(&mut self, buffer: BufferId) {
        assert!(self.buffers_out.remove(&buffer.index()), "released a buffer that the kernel has");
        self.buffers_free.push(buffer.index() as u16);
    }

    fn buffers_taken(&self) -> usize {
        self.buffers_out.len()
    }

    fn take_peer(&mut self, _index: usize) -> Option<SocketAddr> {
        Some((Ipv4Addr::LOCALHOST, 1).into())
    }

    fn shutdown(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.shutdowns += 1;
        let named = |named: &&RawFd| **named == fd.as_raw_fd();
        let armed: Vec<_> = self.armed.iter().filter(|(_, fd)| named(fd)).map(|(&tag, _)| Tag(tag)).collect();
        for tag in armed {
            let result = match tag.operation() {
                Some(Operation::Receive) => 0,
                Some(Operation::Accept) => -libc::EINVAL,
                _ => i32::from(libc::POLLHUP),
            };
            self.complete(tag, result, None, false);
        }
        Ok(())
    }

    fn shutdown_write(&mut self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        if self.script.shutdown_fails { Err(io::Error::from_raw_os_error(libc::ENOTCONN)) } else { Ok(()) }
    }

    fn reset_on_close(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.resets.insert(fd.as_raw_fd());
        Ok(())
    }

    fn connect_result(&mut self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        self.script.connects.pop_front().map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn close(&mut self, fd: OwnedFd) {
        let raw = fd.as_raw_fd();
        assert!(!self.names(raw), "closed a descriptor on which something is armed");
        assert!(!self.sends_in_flight.contains(&raw), "closed a descriptor in the middle of a send");
        if let Some(socket) = self.open.remove(&raw) {
            self.generations_closed.insert(socket.slot(), socket);
        }
        self.adopted.remove(&raw);
        self.sent.remove(&raw);
        self.closed.push(raw);
    }
}

fn completion(tag: Tag, result: i32, buffer: Option<u16>, more: bool) -> Completion {
    Completion { tag, result, buffer: buffer.map(BufferId::imagined), accepted: None, more }
}

fn is_readable(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd, borrowed for the call.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}
