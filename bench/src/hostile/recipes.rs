//! A table of attacks. An attacker repeats its recipe until its time or its bytes are used up.
//!
//! Every recipe stays within the protocol, or violates it in a way that is open to any client. Attacks that
//! need an unreachable Kafka cluster, or a partition without a leader, are tests of the gateway and are not
//! included here.

use std::io;
use std::thread;
use std::time::Duration;

use super::attacker::{AttackConnection, Attacker, MESSAGE_BYTES_MAX};
use super::messages::{
    CHANNELS_MAX, PARTITIONS, every_kind, message, names, offset_list, since, subscribe, unsubscribe,
};
use crate::client::frames::Opcode;

/// An offset that no partition reaches.
const AHEAD: u64 = 900_000_000_000;
/// The number of messages that a session may send at once.
const MESSAGES_BURST: usize = 100;
/// Time in which a server that keeps up processes the sent messages.
const MOMENT: Duration = Duration::from_millis(150);
const SILENT_CONNECTIONS: usize = 13_000;

/// An attack.
#[derive(Debug)]
pub struct Recipe {
    /// The name: one word or two.
    pub name: &'static str,
    /// A description of what the attack sends.
    pub sends: &'static str,
    /// Runs the attack once; an error is the server's reaction.
    pub attack: fn(&mut Attacker) -> io::Result<()>,
}

const fn recipe(
    name: &'static str,
    sends: &'static str,
    attack: fn(&mut Attacker) -> io::Result<()>,
) -> Recipe {
    Recipe { name, sends, attack }
}

/// All recipes.
pub static RECIPES: [Recipe; 25] = [
    recipe("unsubscribe-resumed", "* resumed, 255 names live, then * and 255 junk names given back", resumed),
    recipe(
        "unsubscribe-queued",
        "255 junk names before *, a full queue unread, the names given back",
        queued,
    ),
    recipe("unsubscribe-orders", "256 names held, doubled and junk, in random orders, 98 messages", orders),
    recipe("alternation", "* resumed and given back, in turn", alternation),
    recipe("cursors", "since [] for 8 kinds of 256 wildcards, kept", cursors),
    recipe("positions", "a list of thousands of positions for each of three wildcards", positions),
    recipe("ahead", "since beyond every partition's end, kept", ahead),
    recipe("ahead-gone", "since beyond every partition's end, then a reset", ahead_gone),
    recipe("everything", "since [] of everything, read as fast as it comes", everything),
    recipe("everything-unread", "the same, not read", everything_unread),
    recipe("snapshots", "a snapshot of * and of 255 wildcards, again and again", snapshots),
    recipe("acks-unread", "256 names subscribed in every message, acknowledgements not read", acks_unread),
    recipe("rejections", "64 KiB of names that are none", rejections),
    recipe("deep-json", "64 KiB of open brackets", deep_json),
    recipe("binary", "64 KiB binary messages", binary),
    recipe("pings", "pings of 125 bytes, pongs read", pings),
    recipe("pings-unread", "pings of 125 bytes, pongs not read", pings_unread),
    recipe("bytes", "fragments of one byte, 1,000 connections in all", one_byte),
    recipe("fragments", "fragments without a byte, no end", empty_fragments),
    recipe("after-close", "a close frame, then bytes", after_close),
    recipe("silent", "13,000 connections in all that say nothing", silent),
    recipe("half-heads", "heads of 6 KB of which the end does not come, 2,000 in all", incomplete_headers),
    recipe("huge-heads", "handshakes with 8 KB of headers", huge_headers),
    recipe("storm", "a connect, half a handshake or a whole one, a reset", storm),
    recipe("idle-crowd", "1,000 sessions in all that answer no ping and read nothing of *", idle_crowd),
];

fn resumed(attacker: &mut Attacker) -> io::Result<()> {
    // Unread, with tokens that have events, so that the resume continues.
    let mut link = attacker.open_unread()?;
    let live = names("T", CHANNELS_MAX - 1, ".trade");
    let mut junk = names("J", CHANNELS_MAX - 1, ".x");
    junk.insert(0, live[0].clone());
    attacker.say_all(&mut link, &[since(&["*"], &every_kind("[]")), subscribe(&live)])?;
    attacker.linger(&mut link, MOMENT)?;
    // At once, while the queue is full.
    attacker.say_all(&mut link, &[unsubscribe(&["*"]), unsubscribe(&junk)])?;
    attacker.linger(&mut link, MOMENT)
}

fn queued(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open_unread()?;
    let junk = names("J", CHANNELS_MAX - 1, ".x");
    let mut all = junk.clone();
    all.push("*".to_owned());
    let of_all = format!(r#","since":{{"*":{}}}"#, every_kind("[]"));
    attacker.say(&mut link, &message("subscribe", &all, &of_all))?;
    attacker.linger(&mut link, 2 * MOMENT)?;
    let backwards: Vec<_> = junk.iter().rev().collect();
    for some in backwards.chunks(8) {
        attacker.say(&mut link, &unsubscribe(some))?;
    }
    attacker.linger(&mut link, MOMENT)
}

fn orders(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    attacker.say(&mut link, &since(&["*"], &every_kind("[]")))?;
    let mut pool = names("N", 200, ".trade");
    pool.extend(names("N", 20, ".*"));
    pool.extend(["*".to_owned(), "*.trade".to_owned()]);
    let doubled: Vec<_> = pool.iter().take(34).cloned().collect();
    pool.extend(doubled);
    for _ in 0..(MESSAGES_BURST - 2) / 2 {
        attacker.random.shuffle(&mut pool);
        attacker.say(&mut link, &subscribe(&pool))?;
        attacker.random.shuffle(&mut pool);
        attacker.say(&mut link, &unsubscribe(&pool[..200]))?;
    }
    attacker.linger(&mut link, MOMENT)
}

fn alternation(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    for _ in 0..(MESSAGES_BURST - 2) / 2 {
        attacker.say(&mut link, &since(&["*"], &every_kind("[]")))?;
        attacker.say(&mut link, &unsubscribe(&["*"]))?;
    }
    attacker.linger(&mut link, MOMENT)
}

fn cursors(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    attacker.say(&mut link, &since(&names("X", CHANNELS_MAX, ".*"), &every_kind("[]")))?;
    attacker.linger(&mut link, MOMENT)?;
    attacker.hold(link);
    Ok(())
}

fn positions(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    let value = format!(r#"{{"trade":{}}}"#, offset_list(2_400, 0));
    let text = since(&["A.*", "B.*", "*.trade"], &value.replace(r#":0""#, r#":9""#));
    for _ in 0..8 {
        attacker.say(&mut link, &text[..])?;
        attacker.say(&mut link, &unsubscribe(&["A.*", "B.*", "*.trade"]))?;
    }
    attacker.linger(&mut link, MOMENT)
}

fn ask_ahead(attacker: &mut Attacker) -> io::Result<AttackConnection> {
    let mut link = attacker.open()?;
    let value = every_kind(&offset_list(PARTITIONS, AHEAD));
    attacker.say(&mut link, &since(&names("Y", 32, ".*"), &value))?;
    attacker.linger(&mut link, MOMENT / 5)?;
    Ok(link)
}

fn ahead(attacker: &mut Attacker) -> io::Result<()> {
    let link = ask_ahead(attacker)?;
    attacker.hold(link);
    Ok(())
}

fn ahead_gone(attacker: &mut Attacker) -> io::Result<()> {
    ask_ahead(attacker).map(drop)
}

fn everything(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    attacker.say(&mut link, &since(&["*"], &every_kind("[]")))?;
    attacker.linger(&mut link, 2 * MOMENT)
}

fn everything_unread(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open_unread()?;
    attacker.say(&mut link, &since(&["*"], &every_kind("[]")))?;
    attacker.linger(&mut link, MOMENT / 10)?;
    attacker.hold(link);
    Ok(())
}

fn snapshots(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    let mut all = names("T", CHANNELS_MAX - 1, ".*");
    all.insert(0, "*".to_owned());
    for _ in 0..(MESSAGES_BURST - 2) / 2 {
        attacker.say(&mut link, &message("subscribe", &all, r#","snapshot":true"#))?;
        attacker.say(&mut link, &unsubscribe(&all))?;
    }
    attacker.linger(&mut link, MOMENT)
}

fn acks_unread(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open_unread()?;
    let text =
        message("subscribe", &names("LONG-NAME-OF-A-TOKEN-", CHANNELS_MAX, ".trade"), r#","positions":true"#);
    for _ in 0..MESSAGES_BURST {
        attacker.say(&mut link, &text)?;
    }
    attacker.linger(&mut link, MOMENT)
}

fn rejections(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    // The gateway rejects each name because of its last character.
    let text = subscribe(&names(
        "XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX",
        CHANNELS_MAX,
        ".tra de",
    ));
    let unknown = unsubscribe(&["..*"; 10_000]);
    for _ in 0..MESSAGES_BURST / 2 {
        attacker.say(&mut link, &text)?;
        attacker.say(&mut link, &unknown)?;
    }
    attacker.linger(&mut link, MOMENT)
}

fn deep_json(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    let open = "[".repeat(MESSAGE_BYTES_MAX - 100);
    let within = format!(
        r#"{{"type":"subscribe","data":{{"channels":["A.b"],"since":{{"A.b":{}"#,
        &open[..MESSAGE_BYTES_MAX - 200]
    );
    for _ in 0..MESSAGES_BURST / 2 {
        attacker.say(&mut link, &open)?;
        attacker.say(&mut link, &within)?;
    }
    attacker.linger(&mut link, MOMENT)
}

fn binary(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    let bytes = vec![0; MESSAGE_BYTES_MAX];
    for _ in 0..2 * MESSAGES_BURST {
        attacker.frame(&mut link, Opcode::Binary, &bytes)?;
    }
    Ok(())
}

fn flood(attacker: &mut Attacker, link: &mut AttackConnection, first: &[u8], frame: &[u8]) -> io::Result<()> {
    attacker.send(link, first)?;
    let many = frame.repeat(MESSAGE_BYTES_MAX / frame.len());
    loop {
        attacker.send(link, &many)?;
        if link.reads {
            link.drain()?;
        }
    }
}

fn ping() -> Vec<u8> {
    let mut frame = vec![0x89, 0x80 | 125, 1, 2, 3, 4];
    frame.extend_from_slice(&[0; 125]);
    frame
}

fn pings(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    flood(attacker, &mut link, &[], &ping())
}

fn pings_unread(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open_unread()?;
    flood(attacker, &mut link, &[], &ping())
}

fn one_byte(attacker: &mut Attacker) -> io::Result<()> {
    let mut links = Vec::new();
    for _ in 0..attacker.share(1_000) {
        links.push(attacker.open()?);
    }
    let fragments = [0x00, 0x81, 1, 2, 3, 4, b'a'].repeat(500);
    for link in &mut links {
        attacker.send(link, &[0x01, 0x81, 1, 2, 3, 4, b'a'])?;
    }
    while !attacker.is_over() {
        for link in &mut links {
            attacker.send(link, &fragments)?;
        }
    }
    Ok(())
}

fn empty_fragments(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    flood(attacker, &mut link, &[0x01, 0x80, 1, 2, 3, 4], &[0x00, 0x80, 1, 2, 3, 4])
}

fn after_close(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.open()?;
    flood(attacker, &mut link, &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8], &[0; 1024])
}

fn silent(attacker: &mut Attacker) -> io::Result<()> {
    if attacker.held() >= attacker.share(SILENT_CONNECTIONS) {
        attacker.rest();
        return Ok(());
    }
    let link = attacker.connect(None)?;
    attacker.hold(link);
    Ok(())
}

fn incomplete_headers(attacker: &mut Attacker) -> io::Result<()> {
    if attacker.held() >= attacker.share(2_000) {
        attacker.rest();
        return Ok(());
    }
    let mut link = attacker.connect(None)?;
    let mut head = attacker.request();
    head.truncate(head.len() - 2);
    while head.len() < 6_000 {
        head.extend_from_slice(b"Cookie: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
    }
    // In two parts, so that the first part has been parsed when the second arrives.
    let (one, other) = head.split_at(3_000);
    attacker.send(&mut link, one)?;
    attacker.send(&mut link, other)?;
    attacker.hold(link);
    Ok(())
}

fn huge_headers(attacker: &mut Attacker) -> io::Result<()> {
    let mut link = attacker.connect(None)?;
    let mut head = attacker.request();
    head.truncate(head.len() - 2);
    while head.len() < 8_000 {
        head.extend_from_slice(b"A: b\r\n");
    }
    head.extend_from_slice(b"\r\n");
    attacker.send(&mut link, &head)?;
    attacker.linger(&mut link, Duration::from_millis(2))
}

fn storm(attacker: &mut Attacker) -> io::Result<()> {
    let mut half = attacker.connect(None)?;
    let request = attacker.request();
    attacker.send(&mut half, &request[..request.len() / 2])?;
    attacker.open().map(drop)
}

fn idle_crowd(attacker: &mut Attacker) -> io::Result<()> {
    if attacker.held() >= attacker.share(1_000) {
        thread::sleep(MOMENT);
        return Ok(());
    }
    let mut link = attacker.open_unread()?;
    attacker.say(&mut link, &subscribe(&["*"]))?;
    attacker.hold(link);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_recipes_share_a_name() {
        let names: std::collections::BTreeSet<_> = RECIPES.iter().map(|recipe| recipe.name).collect();
        assert_eq!(names.len(), RECIPES.len());
    }
}
