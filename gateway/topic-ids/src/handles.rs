//! Handles of librdkafka, each freed once by its `Drop`.
#![allow(unsafe_code, reason = "librdkafka's admin calls are plain C")]

use std::ffi::{CString, c_char};
use std::ptr::NonNull;

use rdkafka_sys as rdsys;

/// A queue of a client.
pub(crate) struct Queue(NonNull<rdsys::rd_kafka_queue_t>);

impl Queue {
    /// # Safety
    /// `client` is a live client that outlives the queue.
    pub(crate) unsafe fn new(client: *mut rdsys::rd_kafka_t) -> Option<Self> {
        // SAFETY: the caller's promise.
        NonNull::new(unsafe { rdsys::rd_kafka_queue_new(client) }).map(Self)
    }

    pub(crate) fn as_ptr(&self) -> *mut rdsys::rd_kafka_queue_t {
        self.0.as_ptr()
    }

    /// The next event; `None` if none arrived in time.
    pub(crate) fn poll(&self, timeout_ms: i32) -> Option<Event> {
        // SAFETY: the queue lives as long as `self`.
        NonNull::new(unsafe { rdsys::rd_kafka_queue_poll(self.0.as_ptr(), timeout_ms) }).map(Event)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and not used after this call.
        unsafe { rdsys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// Options of one request.
pub(crate) struct Options(NonNull<rdsys::rd_kafka_AdminOptions_t>);

impl Options {
    /// # Safety
    /// `client` is a live client.
    pub(crate) unsafe fn new(client: *mut rdsys::rd_kafka_t) -> Option<Self> {
        let call = rdsys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        // SAFETY: the caller's promise.
        NonNull::new(unsafe { rdsys::rd_kafka_AdminOptions_new(client, call) }).map(Self)
    }

    pub(crate) fn as_ptr(&self) -> *mut rdsys::rd_kafka_AdminOptions_t {
        self.0.as_ptr()
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and not used after this call.
        unsafe { rdsys::rd_kafka_AdminOptions_destroy(self.0.as_ptr()) }
    }
}

/// A list of topic names.
pub(crate) struct Names(NonNull<rdsys::rd_kafka_TopicCollection_t>);

impl Names {
    pub(crate) fn new(names: &[CString]) -> Option<Self> {
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the length is that of the array; its pointers are to NUL-terminated strings that live through the call, which
        // copies them.
        let names =
            unsafe { rdsys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
        NonNull::new(names).map(Self)
    }

    pub(crate) fn as_ptr(&self) -> *mut rdsys::rd_kafka_TopicCollection_t {
        self.0.as_ptr()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and not used after this call.
        unsafe { rdsys::rd_kafka_TopicCollection_destroy(self.0.as_ptr()) }
    }
}

/// An event from a queue.
pub(crate) struct Event(NonNull<rdsys::rd_kafka_event_t>);

impl Event {
    pub(crate) fn as_ptr(&self) -> *mut rdsys::rd_kafka_event_t {
        self.0.as_ptr()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: returned by `Queue::poll`, and not used after this call.
        unsafe { rdsys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}
