//! Messages of clients, and their answers.

use protocol::{
    Channel, ClientMessage, ErrorMessage, Pong, Rejected, SubscriptionAck, UnsubscriptionAck, code,
};
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::channels::Subscriptions;

/// Carries out a client's text message; returns the answer.
pub fn answer(text: &str, subscriptions: &mut Subscriptions) -> String {
    match ClientMessage::parse(text) {
        Ok(ClientMessage::Subscribe(asked)) => subscribe(asked.channels, subscriptions),
        Ok(ClientMessage::Unsubscribe { channels }) => {
            for channel in &channels {
                subscriptions.remove(channel);
            }
            json(&UnsubscriptionAck {
                unsubscribed: channels,
                count: subscriptions.count(),
                rejected: Vec::new(),
            })
        }
        Ok(ClientMessage::Heartbeat) => {
            let ts = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
            json(&Pong { ts })
        }
        Err(error) => json(&ErrorMessage { code: error.code.into(), message: error.message.into() }),
    }
}

fn subscribe(asked: Vec<Cow<'_, str>>, subscriptions: &mut Subscriptions) -> String {
    let mut ack = SubscriptionAck::default();
    for channel in asked {
        let refused = match Channel::parse(&channel) {
            Ok(_) => {
                subscriptions.add(&channel).err().map(|error| (code::TOO_MANY_CHANNELS, error.to_string()))
            }
            Err(error) => Some((error.code(), error.to_string())),
        };
        match refused {
            None => ack.subscribed.push(channel),
            Some((code, message)) => {
                let channel = protocol::client::shorten(&channel).into_owned().into();
                ack.rejected.push(Rejected { channel, code: code.into(), message: message.into() });
            }
        }
    }
    ack.count = subscriptions.count();
    json(&ack)
}

fn json(message: &impl serde::Serialize) -> String {
    let mut out = Vec::new();
    protocol::envelope::write_json(&mut out, message);
    String::from_utf8(out).expect("JSON is UTF-8")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::ServerMessage;

    use super::*;
    use crate::channels::Channels;

    #[test]
    fn good_channels_are_acknowledged_and_wildcards_rejected() {
        let mut subscriptions = Subscriptions::new(Arc::new(Channels::new(64)));
        let text = r#"{"type":"subscribe","data":{"channels":["A.trade","*","B.trade"]}}"#;
        let answer = answer(text, &mut subscriptions);
        let Ok(ServerMessage::SubscriptionAck(ack)) = ServerMessage::parse(&answer) else {
            panic!("{answer}")
        };
        assert_eq!((&*ack.subscribed, ack.count), (&["A.trade".into(), "B.trade".into()][..], 2));
        assert_eq!(ack.rejected.len(), 1);
    }

    #[test]
    fn every_other_message_has_the_gateway_s_answer() {
        let mut subscriptions = Subscriptions::new(Arc::new(Channels::new(64)));
        answer(r#"{"type":"subscribe","data":{"channels":["A.trade"]}}"#, &mut subscriptions);
        let gone = answer(r#"{"type":"unsubscribe","data":{"channels":["A.trade"]}}"#, &mut subscriptions);
        assert!(
            matches!(ServerMessage::parse(&gone), Ok(ServerMessage::UnsubscriptionAck(ack)) if ack.count == 0)
        );
        let pong = answer(r#"{"type":"heartbeat"}"#, &mut subscriptions);
        assert!(matches!(ServerMessage::parse(&pong), Ok(ServerMessage::Pong(_))), "{pong}");
        let error = answer("what?", &mut subscriptions);
        assert!(matches!(ServerMessage::parse(&error), Ok(ServerMessage::Error(_))), "{error}");
    }
}
