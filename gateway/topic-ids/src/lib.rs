//! Asks Kafka's brokers for the ids of topics, and whether this client may read them: one call of librdkafka that rdkafka
//! does not wrap.
//!
//! A topic that is deleted and created again has another id: nothing else tells the two apart for certain. Brokers before
//! Kafka 2.8 give no ids. librdkafka 2.3 then leaves whatever was in its memory in their place, so only what looks like an id
//! counts: Kafka's are random UUIDs, which have six bits that are always the same. One in 64 of other contents has them, too: a
//! caller who finds an id that it does not know, be it the first or another one, asks again, and believes what both answers have.
//!
//! Blocking, for as long as the caller allows. All unsafe code of the crate is here and in `handles`.
#![allow(unsafe_code, reason = "librdkafka's admin calls are plain C")]

mod handles;

use std::ffi::{CStr, CString, NulError};
use std::slice;
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as rdsys;

use self::handles::{Event, Names, Options, Queue};

/// What the brokers say of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id; `None` if the brokers gave none.
    pub id: Option<TopicId>,
    /// Whether this client has the right to read it; `None` if the brokers did not tell.
    pub may_read: Option<bool>,
    /// Why nothing else is known of it.
    pub error: Option<RDKafkaErrorCode>,
}

/// Another one means another topic, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId {
    high: i64,
    low: i64,
}

impl TopicId {
    /// The id in these halves of a UUID, if it is one that Kafka gives: random, so of version 4 and variant 10.
    pub fn new(high: i64, low: i64) -> Option<Self> {
        let (version, variant) = ((high as u64 >> 12) & 0xf, low as u64 >> 62);
        (version == 4 && variant == 0b10).then_some(Self { high, low })
    }
}

/// Why the brokers' answer is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// A name that Kafka cannot have.
    #[error("a topic's name has a zero byte in it")]
    Name(#[from] NulError),
    /// librdkafka has no memory, or does not know the call.
    #[error("librdkafka does not take the question for the topics' ids")]
    Refused,
    /// No broker answered in time, or librdkafka failed; it can be tried again.
    #[error("no answer to the question for the topics' ids: {0}")]
    Failed(RDKafkaErrorCode),
}

/// Asks this broker for all of these topics at once: any broker knows them, and it is known to the client by an answer that it
/// has given. The answers are in the order of the names; one may be missing.
///
/// # Errors
/// Nothing is known of any topic, see [`DescribeError`].
pub fn describe<C: ClientContext>(
    client: &Client<C>,
    broker: i32,
    names: &[&str],
    timeout: Duration,
) -> Result<Vec<Topic>, DescribeError> {
    let names: Vec<CString> = names.iter().map(|&name| CString::new(name)).collect::<Result<_, _>>()?;
    let native = client.native_ptr();
    // SAFETY: `client` is alive until this function returns, and the queue is gone by then.
    let queue = unsafe { Queue::new(native) }.ok_or(DescribeError::Refused)?;
    // SAFETY: `client` is alive.
    let options = unsafe { Options::new(native) }.ok_or(DescribeError::Refused)?;
    let names = Names::new(&names).ok_or(DescribeError::Refused)?;
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    set(&options, broker, timeout_ms)?;
    // SAFETY: all four are alive. librdkafka copies what it needs of the names and the options, and holds the queue until it
    // has answered.
    unsafe { rdsys::rd_kafka_DescribeTopics(native, names.as_ptr(), options.as_ptr(), queue.as_ptr()) };
    // librdkafka answers within its own timeout; a moment more is for the answer's way.
    let patience_ms = timeout_ms.saturating_add(1_000);
    let event = queue.poll(patience_ms).ok_or(DescribeError::Failed(RDKafkaErrorCode::OperationTimedOut))?;
    read(&event)
}

fn set(options: &Options, broker: i32, timeout_ms: i32) -> Result<(), DescribeError> {
    let mut reason = [0; 256];
    // SAFETY: the options are alive, and the buffer is as long as is said.
    let error = unsafe {
        rdsys::rd_kafka_AdminOptions_set_request_timeout(
            options.as_ptr(),
            timeout_ms,
            reason.as_mut_ptr(),
            reason.len(),
        )
    };
    check(error)?;
    // SAFETY: likewise.
    let error = unsafe {
        rdsys::rd_kafka_AdminOptions_set_broker(options.as_ptr(), broker, reason.as_mut_ptr(), reason.len())
    };
    check(error)?;
    // SAFETY: the options are alive. An error would be ours to free, and comes only for options of another call.
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
    // SAFETY: the event is alive; of another kind than asked for the result is null.
    let result = unsafe { rdsys::rd_kafka_event_DescribeTopics_result(event.as_ptr()) };
    if result.is_null() {
        return Err(DescribeError::Refused);
    }
    let mut count = 0;
    // SAFETY: the result is the event's, which is alive.
    let topics = unsafe { rdsys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count) };
    if topics.is_null() || count == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: so many pointers, which are the event's and not changed.
    let topics = unsafe { slice::from_raw_parts(topics, count) };
    // A topic that the broker did not answer for is null.
    let topics = topics.iter().filter(|topic| !topic.is_null());
    // SAFETY: each is a description of the event's, which is alive.
    Ok(topics.map(|&topic| unsafe { read_topic(topic) }).collect())
}

/// # Safety
/// `topic` is a live description.
unsafe fn read_topic(topic: *const rdsys::rd_kafka_TopicDescription_t) -> Topic {
    // SAFETY: the caller's promise; the name is the description's.
    let name = unsafe { rdsys::rd_kafka_TopicDescription_name(topic) };
    // SAFETY: a string that ends in NUL, as long as the description lives.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    // SAFETY: the caller's promise; null, or the description's.
    let error = unsafe { rdsys::rd_kafka_TopicDescription_error(topic) };
    if !error.is_null() {
        // SAFETY: it is not null, and as alive as the description.
        let error = RDKafkaErrorCode::from(unsafe { rdsys::rd_kafka_error_code(error) });
        return Topic { name, id: None, may_read: None, error: Some(error) };
    }
    // SAFETY: the caller's promise.
    Topic { name, id: unsafe { read_id(topic) }, may_read: unsafe { read_right(topic) }, error: None }
}

/// # Safety
/// `topic` is a live description.
unsafe fn read_id(topic: *const rdsys::rd_kafka_TopicDescription_t) -> Option<TopicId> {
    // SAFETY: the caller's promise; the id is a part of the description.
    let id = unsafe { rdsys::rd_kafka_TopicDescription_topic_id(topic) };
    if id.is_null() {
        return None;
    }
    // SAFETY: it is not null, and as alive as the description.
    let high = unsafe { rdsys::rd_kafka_Uuid_most_significant_bits(id) };
    // SAFETY: likewise.
    let low = unsafe { rdsys::rd_kafka_Uuid_least_significant_bits(id) };
    TopicId::new(high, low)
}

/// # Safety
/// `topic` is a live description.
unsafe fn read_right(topic: *const rdsys::rd_kafka_TopicDescription_t) -> Option<bool> {
    let mut count = 0;
    // SAFETY: the caller's promise; the list is the description's.
    let rights = unsafe { rdsys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count) };
    // Null: the broker did not tell.
    if rights.is_null() {
        return None;
    }
    // SAFETY: not null, and so many.
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
    fn topics_are_told_in_the_order_of_the_names_and_one_that_is_not_there_says_why() {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("there", 2, 1).expect("a topic");
        let client = client(&cluster.bootstrap_servers());
        for _ in 0..20 {
            let topics = describe(client.client(), 1, &["absent", "there"], TIMEOUT).expect("an answer");
            let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
            assert_eq!(names, ["absent", "there"]);
            // The mock cluster gives no ids.
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
