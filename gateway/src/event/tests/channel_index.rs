//! What the index of channels promises, against a plain model.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn sessions_of(channels: &mut Channels, token: &str, kind: &str) -> Vec<usize> {
    let mut sessions = Vec::new();
    channels.subscribers(Channel { token, kind }, |session| sessions.push(session));
    sessions
}

#[test]
fn an_event_reaches_exact_and_wildcard_subscribers_and_nobody_else() {
    let mut channels = Channels::default();
    for (session, name) in
        ["BTC.trade", "BTC.*", "*.trade", "*", "ETH.trade", "*.social", "ETH.*"].iter().enumerate()
    {
        assert!(channels.subscribe(session, name));
    }
    assert_eq!(sessions_of(&mut channels, "BTC", "trade"), [0, 1, 2, 3]);
    assert_eq!(sessions_of(&mut channels, "SOL", "social"), [5, 3]);
    assert_eq!(sessions_of(&mut channels, "BTC.B", "trade"), [2, 3], "a token may contain dots");
}

#[test]
fn subscribing_twice_is_once_and_an_entry_without_subscribers_is_gone() {
    let mut channels = Channels::default();
    assert!(channels.subscribe(3, "BTC.trade"));
    assert!(!channels.subscribe(3, "BTC.trade"));
    assert_eq!((channels.count(3), channels.len()), (1, 1));
    assert!(channels.unsubscribe(3, "BTC.trade"));
    assert!(!channels.unsubscribe(3, "BTC.trade"));
    assert!(channels.is_empty());
}

#[test]
fn a_gap_concerns_every_channel_and_wildcard_of_its_kind() {
    let mut channels = Channels::default();
    for (session, name) in
        ["BTC.trade", "ETH.trade", "*.trade", "BTC.*", "*", "BTC.social"].iter().enumerate()
    {
        channels.subscribe(session, name);
    }
    let concerned: BTreeSet<_> = channels.concerned("trade").map(|(name, _)| name).collect();
    assert_eq!(concerned, BTreeSet::from(["BTC.trade", "ETH.trade", "*.trade", "BTC.*", "*"]));
}

#[test]
fn a_random_life_agrees_with_a_plain_model() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let names = ["A.x", "A.y", "B.x", "B.y", "A.*", "B.*", "*.x", "*.y", "*"];
    let mut channels = Channels::default();
    let mut model: BTreeMap<usize, BTreeSet<&str>> = BTreeMap::new();
    for _ in 0..20_000 {
        let (session, name) = (random.usize(..20), names[random.usize(..names.len())]);
        match random.u8(..10) {
            0..=5 => assert_eq!(
                channels.subscribe(session, name),
                model.entry(session).or_default().insert(name),
                "seed {seed}"
            ),
            6..=8 => assert_eq!(
                channels.unsubscribe(session, name),
                model.entry(session).or_default().remove(name),
                "seed {seed}"
            ),
            _ => {
                channels.remove_session(session);
                model.remove(&session);
            }
        }
        let (token, kind) = (["A", "B"][random.usize(..2)], ["x", "y"][random.usize(..2)]);
        let channel = Channel { token, kind };
        let mut expected = Vec::new();
        for (&session, held) in &model {
            let matching =
                held.iter().filter(|name| Pattern::parse(name).is_ok_and(|pattern| pattern.selects(channel)));
            expected.extend(matching.map(|_| session));
            assert_eq!(channels.count(session), held.len(), "seed {seed}");
        }
        let mut found = sessions_of(&mut channels, token, kind);
        found.sort_unstable();
        assert_eq!(found, expected, "seed {seed}");
        assert_eq!(channels.len(), model.values().flatten().collect::<BTreeSet<_>>().len(), "seed {seed}");
    }
}

#[test]
fn peers_hear_of_first_and_last_subscribers_and_of_nothing_else() {
    let mut channels = Channels::with_peers();
    let change = |name: &str, is_wanted| Interest { name: name.into(), is_wanted };
    channels.subscribe(1, "A.x");
    channels.subscribe(2, "A.x");
    channels.subscribe(2, "*");
    assert_eq!(channels.take_changes(), [change("A.x", true), change("*", true)]);
    channels.unsubscribe(1, "A.x");
    assert_eq!(channels.take_changes(), []);
    channels.remove_session(2);
    let mut changes = channels.take_changes();
    changes.sort_by(|left, right| left.name.cmp(&right.name));
    assert_eq!(changes, [change("*", false), change("A.x", false)]);
    assert_eq!(Channels::default().take_changes(), []);
}

#[test]
fn an_event_goes_to_the_peers_that_want_it_and_an_entry_stays_for_them() {
    let mut channels = Channels::default();
    for (peer, name) in [(1, "A.x"), (2, "*.x"), (63, "*"), (4, "B.*")] {
        channels.set_interest(peer, &Interest { name: name.into(), is_wanted: true });
    }
    assert_eq!(peers_of(&mut channels, "A", "x"), [1, 2, 63]);
    assert_eq!(peers_of(&mut channels, "B", "y"), [4, 63]);
    channels.subscribe(0, "A.x");
    channels.unsubscribe(0, "A.x");
    assert_eq!(peers_of(&mut channels, "A", "x"), [1, 2, 63], "the peer still wants it");
    channels.set_interest(1, &Interest { name: "A.x".into(), is_wanted: false });
    assert_eq!(peers_of(&mut channels, "A", "x"), [2, 63]);
    assert!(channels.is_empty(), "nobody here wants anything");
}

fn peers_of(channels: &mut Channels, token: &str, kind: &str) -> Vec<usize> {
    channels.subscribers(Channel { token, kind }, |_| {}).iter().collect()
}
