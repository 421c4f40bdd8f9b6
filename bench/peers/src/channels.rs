//! Distribution of events: a broadcast queue per channel, and the subscriptions of one session.
//!
//! An event is encoded once; a queue and its receivers share those bytes. A receiver that is a whole queue
//! behind has lost its position: its session must be closed instead of silently missing events. tokio
//! allocates the memory of a queue at once, so the queue length depends on the number of channels.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{Receiver, Sender, channel};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// Channels of the process; each keeps its queue.
const CHANNELS_MAX: usize = 100_000;
/// Channels of one session, the gateway's default.
const SESSION_CHANNELS_MAX: usize = 256;

/// The channels that were subscribed to at least once.
#[derive(Debug)]
pub struct Channels {
    queue_events: usize,
    // Never contended, because all users are on one thread; `tokio::spawn` requires the lock.
    senders: Mutex<HashMap<String, Sender<Utf8Bytes>>>,
}

/// The session did not keep up and must be closed with 1008.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too slow: more than a queue of events behind")]
pub struct Lagged;

/// Why a channel is not subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The limit of the session is reached.
    #[error("at most {SESSION_CHANNELS_MAX} channels for a session")]
    Session,
    /// The limit of the process is reached.
    #[error("at most {CHANNELS_MAX} channels in all")]
    Process,
}

impl Channels {
    /// Creates an empty set; each channel will have a queue of `queue_events` events, a power of two.
    pub fn new(queue_events: usize) -> Self {
        Self { queue_events, senders: Mutex::default() }
    }

    /// Sends an event to all subscribers. `encode` is called only if there is one.
    pub fn publish<E>(&self, channel: &str, encode: impl FnOnce() -> Result<Utf8Bytes, E>) -> Result<(), E> {
        let senders = self.senders();
        if let Some(sender) = senders.get(channel).filter(|sender| sender.receiver_count() > 0) {
            // `send` fails only without receivers, in which case the event is not needed.
            let _ = sender.send(encode()?);
        }
        Ok(())
    }

    fn receive(&self, name: &str) -> Result<Receiver<Utf8Bytes>, SubscribeError> {
        let mut senders = self.senders();
        if let Some(sender) = senders.get(name) {
            return Ok(sender.subscribe());
        }
        if senders.len() == CHANNELS_MAX {
            return Err(SubscribeError::Process);
        }
        let (sender, receiver) = channel(self.queue_events);
        senders.insert(name.to_owned(), sender);
        Ok(receiver)
    }

    fn senders(&self) -> MutexGuard<'_, HashMap<String, Sender<Utf8Bytes>>> {
        self.senders.lock().expect("no holder of the lock panics")
    }
}

/// The subscriptions of one session.
#[derive(Debug)]
pub struct Subscriptions {
    channels: Arc<Channels>,
    names: HashSet<String>,
    receivers: Vec<(String, Receiver<Utf8Bytes>)>,
}

impl Subscriptions {
    /// Creates an empty set of subscriptions.
    pub fn new(channels: Arc<Channels>) -> Self {
        Self { channels, names: HashSet::new(), receivers: Vec::new() }
    }

    /// Number of subscriptions.
    pub fn count(&self) -> usize {
        self.receivers.len()
    }

    /// Adds a subscription; adding it twice is not an error.
    pub fn add(&mut self, channel: &str) -> Result<(), SubscribeError> {
        if self.names.contains(channel) {
            return Ok(());
        }
        if self.receivers.len() == SESSION_CHANNELS_MAX {
            return Err(SubscribeError::Session);
        }
        let receiver = self.channels.receive(channel)?;
        self.names.insert(channel.to_owned());
        self.receivers.push((channel.to_owned(), receiver));
        Ok(())
    }

    /// Removes a subscription.
    pub fn remove(&mut self, channel: &str) {
        self.names.remove(channel);
        self.receivers.retain(|(name, _)| name != channel);
    }

    /// Waits for the next event. The future can be dropped at any time without losing an event.
    pub async fn next(&mut self) -> Result<Utf8Bytes, Lagged> {
        let received = match &mut *self.receivers {
            [] => pending().await,
            // The common case of one channel: no allocation, one waiter.
            [(_, receiver)] => receiver.recv().await,
            several => {
                let waits = several.iter_mut().map(|(_, receiver)| Box::pin(receiver.recv()));
                futures_util::future::select_all(waits).await.0
            }
        };
        received.map_err(|error| match error {
            RecvError::Lagged(_) => Lagged,
            RecvError::Closed => unreachable!("senders are never removed"),
        })
    }

    /// Returns a further event if one is already queued.
    pub fn next_ready(&mut self) -> Result<Option<Utf8Bytes>, Lagged> {
        for (_, receiver) in &mut self.receivers {
            match receiver.try_recv() {
                Ok(event) => return Ok(Some(event)),
                Err(TryRecvError::Lagged(_)) => return Err(Lagged),
                Err(TryRecvError::Empty | TryRecvError::Closed) => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE_EVENTS: usize = 64;

    fn publish(channels: &Channels, channel: &str, text: &'static str) {
        channels
            .publish(channel, || Ok::<_, std::convert::Infallible>(Utf8Bytes::from_static(text)))
            .expect("cannot fail");
    }

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn each_session_gets_what_it_subscribed_to_in_order() {
        let channels = Arc::new(Channels::new(QUEUE_EVENTS));
        let mut one = Subscriptions::new(Arc::clone(&channels));
        let mut both = Subscriptions::new(Arc::clone(&channels));
        one.add("A.trade").expect("room");
        both.add("A.trade").expect("room");
        both.add("A.trade").expect("twice is once");
        both.add("B.trade").expect("room");
        assert_eq!(both.count(), 2);
        for (channel, text) in [("A.trade", "a1"), ("B.trade", "b1"), ("C.trade", "c1"), ("A.trade", "a2")] {
            publish(&channels, channel, text);
        }
        let mut got = Vec::new();
        while let Some(event) = both.next_ready().expect("not slow") {
            got.push(event.to_string());
        }
        assert_eq!(got, ["a1", "a2", "b1"]);
        assert_eq!(block_on(one.next()).expect("not slow").as_str(), "a1");
        one.remove("A.trade");
        publish(&channels, "A.trade", "a3");
        assert_eq!(one.next_ready(), Ok(None));
        assert_eq!(block_on(both.next()).expect("not slow").as_str(), "a3");
    }

    #[test]
    fn a_session_too_far_behind_is_told_and_one_at_the_bound_is_not() {
        let channels = Arc::new(Channels::new(QUEUE_EVENTS));
        let mut slow = Subscriptions::new(Arc::clone(&channels));
        slow.add("A.trade").expect("room");
        (0..QUEUE_EVENTS).for_each(|_| publish(&channels, "A.trade", "x"));
        assert!(slow.next_ready().expect("at the bound").is_some());
        (0..2).for_each(|_| publish(&channels, "A.trade", "x"));
        assert_eq!(slow.next_ready(), Err(Lagged));
    }

    #[test]
    fn an_event_that_nobody_asked_for_is_not_encoded() {
        let channels = Channels::new(QUEUE_EVENTS);
        channels.publish("A.trade", || -> Result<_, ()> { panic!("encoded") }).expect("not encoded");
    }

    #[test]
    fn a_session_is_bounded_in_channels() {
        let mut session = Subscriptions::new(Arc::new(Channels::new(QUEUE_EVENTS)));
        for number in 0..SESSION_CHANNELS_MAX {
            session.add(&format!("T{number}.trade")).expect("room");
        }
        assert_eq!(session.add("one.more"), Err(SubscribeError::Session));
    }
}
