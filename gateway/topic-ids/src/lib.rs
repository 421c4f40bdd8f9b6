//! Asks Kafka's brokers for the ids of topics, and whether this client may read them: one call of librdkafka that rdkafka does
//! not wrap.
//!
//! A topic that is deleted and recreated has another id: nothing else distinguishes the two reliably. Brokers before Kafka 2.8
//! return no ids. librdkafka 2.3 then leaves uninitialised memory in place of the id, so only a value that looks like an id is
//! accepted: Kafka's ids are random UUIDs, in which six bits are constant. One in 64 arbitrary values also has these bits, so a
//! caller that gets an unknown id, the first one or a different one, asks again and accepts what both answers agree on.
//!
//! The call blocks up to the caller's timeout. All unsafe code of the crate is here and in `handles`.
#![allow(unsafe_code, reason = "librdkafka's admin calls are plain C")]

mod handles;

use std::ffi::{CStr, CString, NulError};
use std::slice;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as rdsys;

use self::handles::{Event, Names, Options, Queue};

/// The brokers' description of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The topic's name.
    pub name: String,
    /// The topic's id; `None` if the brokers returned none.
    pub id: Option<TopicId>,
    /// Whether this client may read the topic; `None` if the brokers did not say.
    pub may_read: Option<bool>,
    /// Why the rest of the description is missing.
    pub error: Option<RDKafkaErrorCode>,
}

/// A topic's id. Different ids are different topics, even with the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId {
    high: i64,
    low: i64,
}

impl TopicId {
    /// The id of these halves of a UUID, if it can be one of Kafka's: random, so of version 4 and variant 10.
    pub fn new(high: i64, low: i64) -> Option<Self> {
        let (version, variant) = ((high as u64 >> 12) & 0xf, low as u64 >> 62);
        (version == 4 && variant == 0b10).then_some(Self { high, low })
    }
}

/// Why there is no answer from the brokers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// A topic name that is invalid in Kafka.
    #[error("a topic's name has a zero byte in it")]
    Name(#[from] NulError),
    /// librdkafka is out of memory, or does not support the call.
    #[error("librdkafka does not take the question for the topics' ids")]
    Refused,
    /// No broker answered in time, or librdkafka failed; a retry may succeed.
    #[error("no answer to the question for the topics' ids: {0}")]
    Failed(RDKafkaErrorCode),
}

/// Asks a broker for all of these topics at once. Any broker knows the topics; the client knows a broker once it has answered. The
/// answers are in the order of the names; some may be missing.
///
/// # Errors
/// No topic could be described, see [`DescribeError`].
pub fn describe<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<Topic>, DescribeError> {
    let names: Vec<CString> = names.iter().map(|&name| CString::new(name)).collect::<Result<_, _>>()?;
    let native = client.native_ptr();
    // SAFETY: `client` is alive until this function returns, and the queue is dropped by then.
    let queue = unsafe { Queue::new(native) }.ok_or(DescribeError::Refused)?;
    // SAFETY: `client` is alive.
    let options = unsafe { Options::new(native) }.ok_or(DescribeError::Refused)?;
    let names = Names::new(&names).ok_or(DescribeError::Refused)?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    set(&options, broker, timeout_ms)?;
    // SAFETY: all four are alive. librdkafka copies what it needs of the names and the options, and keeps the queue until it has
    // answered.
    unsafe { rdsys::rd_kafka_DescribeTopics(native, names.as_ptr(), options.as_ptr(), queue.as_ptr()) };
    // librdkafka answers within its own timeout; the margin is for the delivery of the answer.
    let patience_ms = timeout_ms.saturating_add(1_000);
    let event = queue.poll(patience_ms).ok_or(DescribeError::Failed(RDKafkaErrorCode::OperationTimedOut))?;
    read(&event)
}

fn set(options: &Options, broker: i32, timeout_ms: i32) -> Result<(), DescribeError> {
    let mut reason = [0; 256];
    // SAFETY: the options are alive, and the buffer has the stated length.
    let error = unsafe {
        rdsys::rd_kafka_AdminOptions_set_request_timeout(
            options.as_ptr(),
            timeout_ms,
            reason.as_mut_ptr(),
            reason.len(),
        )
    };
    check(error)?;
    // SAFETY: as above.
    let error = unsafe {
        rdsys::rd_kafka_AdminOptions_set_broker(options.as_ptr(), broker, reason.as_mut_ptr(), reason.len())
    };
    check(error)?;
    // SAFETY: the options are alive. An error would have to be freed here, but occurs only for options of another call.
    let error =
        unsafe { rdsys::rd_kafka_AdminOptions_set_include_authorized_operations(options.as_ptr(), 1) };
    if error.is_null() { Ok(()) } else { Err(DescribeError::Refused) }
}

fn check(error: rdsys::rd_kafka_resp_err_t) -> Result<(), DescribeError> {
    match RDKafkaErrorCode::from(error) {
        RDKafkaErrorCode::NoError => Ok(()),
        error => Err(DescribeError::Failed(error)),
    }
}

fn read(event: &Event) -> Result<Vec<Topic>, DescribeError> {
    // SAFETY: the event is alive.
    check(unsafe { rdsys::rd_kafka_event_error(event.as_ptr()) })?;
    // SAFETY: the event is alive; for an event of another kind the result is null.
    let result = unsafe { rdsys::rd_kafka_event_DescribeTopics_result(event.as_ptr()) };
    if result.is_null() {
        return Err(DescribeError::Refused);
    }
    let mut count = 0;
    // SAFETY: the result belongs to the event, which is alive.
    let topics = unsafe { rdsys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count) };
    if topics.is_null() || count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the count is that of the pointers, which belong to the event and do not change.
    let topics = unsafe { slice::from_raw_parts(topics, count) };
    // A topic without an answer from the broker is null.
    let topics = topics.iter().filter(|topic| !topic.is_null());
    // SAFETY: each is a description that belongs to the event, which is alive.
    Ok(topics.map(|&topic| unsafe { read_topic(topic) }).collect())
}

/// # Safety
/// `topic` is a live description.
unsafe fn read_topic(topic: *const rdsys::rd_kafka_TopicDescription_t) -> Topic {
    // SAFETY: the caller's promise; the name belongs to the description.
    let name = unsafe { rdsys::rd_kafka_TopicDescription_name(topic) };
    // SAFETY: a NUL-terminated string that lives as long as the description.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    // SAFETY: the caller's promise; the pointer is null or belongs to the description.
    let error = unsafe { rdsys::rd_kafka_TopicDescription_error(topic) };
    if !error.is_null() {
        // SAFETY: not null, and alive as long as the description.
        let error = RDKafkaErrorCode::from(unsafe { rdsys::rd_kafka_error_code(error) });
        return Topic { name, id: None, may_read: None, error: Some(error) };
    }
    // SAFETY: the caller's promise.
    Topic { name, id: unsafe { read_id(topic) }, may_read: unsafe { read_right(topic) }, error: None }
}

/// # Safety
/// `topic` is a live description.
unsafe fn read_id(topic: *const rdsys::rd_kafka_TopicDescription_t) -> Option<TopicId> {
    // SAFETY: the caller's promise; the id is part of the description.
    let id = unsafe { rdsys::rd_kafka_TopicDescription_topic_id(topic) };
    if id.is_null() {
        return None;
    }
    // SAFETY: not null, and alive as long as the description.
    let high = unsafe { rdsys::rd_kafka_Uuid_most_significant_bits(id) };
    // SAFETY: as above.
    let low = unsafe { rdsys::rd_kafka_Uuid_least_significant_bits(id) };
    TopicId::new(high, low)
}

/// # Safety
/// `topic` is a live description.
unsafe fn read_right(topic: *const rdsys::rd_kafka_TopicDescription_t) -> Option<bool> {
    let mut count = 0;
    // SAFETY: the caller's promise; the list belongs to the description.
    let rights = unsafe { rdsys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count) };
    // Null: the broker did not say.
    if rights.is_null() {
        return None;
    }
    // SAFETY: not null, and the count is that of the list.
    let rights = unsafe { slice::from_raw_parts(rights, count) };
    Some(rights.contains(&rdsys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ))
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn client(brokers: &str) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", "test");
        config.create().expect("a client")
    }

    #[test]
    fn only_a_random_uuid_is_an_id() {
        assert!(TopicId::new(0x0123_4567_89ab_4def, -0x7000_0000_0000_0000).is_some());
        assert_eq!(TopicId::new(0, 0), None, "what brokers give that have none");
        assert_eq!(TopicId::new(0x0000_7f12_3456_4878, 0x0000_7f12_3456_789a), None, "a pointer");
        assert_eq!(TopicId::new(i64::from_be_bytes(*b"odin.tra"), i64::from_be_bytes(*b"des.0123")), None);
    }

    #[test]
    fn topics_are_in_the_order_of_the_names_and_a_missing_one_has_an_error() {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("there", 2, 1).expect("a topic");
        let client = client(&cluster.bootstrap_servers());
        for _ in 0..20 {
            let topics = describe(client.client(), 1, &["absent", "there"], TIMEOUT).expect("an answer");
            let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
            assert_eq!(names, ["absent", "there"]);
            // The mock cluster returns no ids.
            assert_eq!((topics[1].id, topics[1].error), (None, None));
        }
        let none = describe(client.client(), 1, &[], TIMEOUT).expect("an answer");
        assert_eq!(none, []);
    }

    #[test]
    fn names_that_cannot_be_asked_for_are_refused() {
        let client = client("127.0.0.1:1");
        assert!(matches!(describe(client.client(), 1, &["a\0b"], TIMEOUT), Err(DescribeError::Name(_))));
        let twice = describe(client.client(), 1, &["a", "a"], TIMEOUT);
        assert_eq!(twice, Err(DescribeError::Failed(RDKafkaErrorCode::InvalidArgument)));
    }

    #[test]
    fn without_a_broker_the_question_ends_in_time() {
        let client = client("127.0.0.1:1");
        let answer = describe(client.client(), 1, &["a"], Duration::from_millis(200));
        assert!(matches!(answer, Err(DescribeError::Failed(_))), "{answer:?}");
    }
}
