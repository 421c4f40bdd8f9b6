use super::*;
use crate::shard::test_shard::{REQUEST, TestShard};

/// So many sockets of a gateway for ten sessions are no shortage.
const PLENTY: usize = 10 + limits::SOCKETS_SPARE - limits::SOCKETS_SHORT;

fn door() -> TestShard {
    TestShard::new(&[("WS_MAX_CONNECTIONS", "10"), ("WS_TRUSTED_PROXIES", "10.0.0.0/8")])
}

const PROBE: &[u8] = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n";

fn accept(door: &mut TestShard, peer: &str, count: usize) -> Vec<SocketId> {
    (0..count).map(|_| door.accept(peer)).collect()
}

/// Connections of as many addresses, of this network of 2^16.
fn accept_of_each(door: &mut TestShard, network: &str, count: usize) -> Vec<SocketId> {
    let of_address = |number: usize| format!("{network}.{}.{}:1", number / 250, number % 250);
    (0..count).map(|number| door.accept(&of_address(number))).collect()
}

/// Asks, and is answered.
fn probe(door: &mut TestShard, socket: SocketId) {
    door.core.receive(socket, PROBE, door.now);
}

#[test]
fn of_the_address_with_most_the_oldest_goes_when_sockets_run_short_and_of_the_others_none() {
    let mut door = door();
    let honest = accept(&mut door, "192.0.2.1:1", 60);
    let silent = accept(&mut door, "192.0.2.2:1", PLENTY - 60);
    door.next_turn();
    door.has_read_all();
    assert!(door.next_turn().is_empty(), "all of them have room");
    let late = accept(&mut door, "192.0.2.1:1", 3);
    door.has_read_all();
    assert_eq!(door.next_turn(), silent[..3]);
    assert_eq!((door.refused(Refusal::SocketsShort), door.counted().sockets_evicted), (3, 3));
    door.has_read_all();
    assert!(door.next_turn().is_empty(), "once for each that came");
    for socket in honest.into_iter().chain(late) {
        probe(&mut door, socket);
    }
    assert_eq!(door.counted().http_requests.total(), 63);
}

#[test]
fn a_connection_whose_bytes_may_lie_unread_stays() {
    let mut door = door();
    accept(&mut door, "192.0.2.1:1", PLENTY);
    door.next_turn();
    accept(&mut door, "192.0.2.2:1", 10);
    // The ring was not read to its end in this turn.
    door.core.connections.fire_timers(door.now);
    assert!(door.next_turn().is_empty());
    let mut door = self::door();
    // Accepted in this turn: their bytes are asked for in the next.
    accept(&mut door, "192.0.2.1:1", PLENTY + 10);
    door.has_read_all();
    assert!(door.next_turn().is_empty());
    door.has_read_all();
    assert_eq!(door.next_turn().len(), 10);
}

#[test]
fn a_connection_that_was_answered_and_does_not_close_goes_even_while_others_lie_unread() {
    let mut door = door();
    let answered = accept(&mut door, "192.0.2.1:1", PLENTY);
    for &socket in &answered {
        probe(&mut door, socket);
    }
    door.next_turn();
    accept(&mut door, "192.0.2.2:1", 10);
    door.core.connections.fire_timers(door.now);
    assert_eq!(door.next_turn(), answered[..10]);
    assert_eq!((door.refused(Refusal::SocketsShort), door.counted().sockets_evicted), (0, 10));
}

#[test]
fn what_was_just_answered_stays_until_its_answer_has_had_time() {
    let mut door = door();
    let most = limits::SOCKETS_SHORT - limits::SOCKETS_FOR_PROBES;
    // Requests of many addresses lie unread, so that nothing else may go.
    accept_of_each(&mut door, "192.0", PLENTY + most + 60);
    for peer in ["127.0.0.1:1", "198.51.100.1:1"] {
        let asking = door.accept(peer);
        probe(&mut door, asking);
        for _ in 0..limits::ENDING_PATIENCE.as_millis() {
            door.core.connections.fire_timers(door.now);
            assert!(door.next_turn().is_empty(), "{peer}");
        }
        door.core.connections.fire_timers(door.now);
        assert_eq!(door.next_turn(), [asking]);
    }
}

/// A balancer's checks, and a scrape.
#[test]
fn an_address_with_a_few_connections_loses_none_before_the_last_sockets() {
    let mut door = door();
    let few = limits::SESSIONLESS_MANY as usize - 1;
    let balancer = accept(&mut door, "198.51.100.1:1", few);
    accept_of_each(&mut door, "192.0", PLENTY);
    door.next_turn();
    door.has_read_all();
    assert!(door.next_turn().is_empty());
    door.accept("198.51.100.1:2");
    door.next_turn();
    door.has_read_all();
    assert_eq!(door.next_turn(), balancer[..1], "one more, and it has many");
}

#[test]
fn what_was_answered_in_this_turn_stays_however_many_others_were_answered_and_do_not_close() {
    let mut door = door();
    let crowd = limits::ENDINGS_YOUNG as usize + 10;
    let mut answered = accept_of_each(&mut door, "192.0", crowd);
    accept_of_each(&mut door, "198.18", PLENTY - crowd);
    // All of one address, which has most now.
    answered.extend(accept(&mut door, "203.0.113.1:1", limits::SESSIONLESS_MANY as usize + 4));
    answered.into_iter().for_each(|socket| probe(&mut door, socket));
    door.has_read_all();
    assert!(door.next_turn().is_empty());
}

#[test]
fn of_all_the_oldest_goes_whether_it_was_answered_or_is_silent() {
    let mut door = door();
    let answered = accept_of_each(&mut door, "192.0", PLENTY);
    answered.iter().for_each(|&socket| probe(&mut door, socket));
    door.now += limits::ENDING_PATIENCE;
    let few = limits::SOCKETS_SHORT - limits::SOCKETS_FOR_PROBES;
    accept_of_each(&mut door, "198.18", few + 3);
    door.next_turn();
    door.has_read_all();
    assert_eq!(door.next_turn(), answered[..3]);
}

#[test]
fn who_is_silent_for_the_time_of_a_handshake_goes_though_no_turn_reads_everything() {
    let mut door = door();
    let silent = accept(&mut door, "192.0.2.1:1", PLENTY + 5);
    for _ in 0..3 {
        door.core.connections.fire_timers(door.now);
        assert!(door.next_turn().is_empty());
    }
    door.now += limits::HANDSHAKE_TIMEOUT;
    door.core.connections.make_room(false, door.now);
    assert_eq!(door.next_turn(), silent[..5]);
}

/// Connects as fast as a turn accepts, asks, and does not close.
#[test]
fn a_crowd_that_is_answered_and_does_not_close_keeps_no_probe_out_or_unanswered() {
    for addresses in [1, 2000] {
        let mut door = TestShard::new(&[("WS_MAX_CONNECTIONS", "10")]);
        let (mut came, mut most) = (0, 0);
        let mut probes = std::collections::VecDeque::new();
        for _ in 0..300 {
            for _ in 0..limits::HANDSHAKES_PER_TURN - 1 {
                let number = came % addresses;
                let socket = door.accept(&format!("192.0.{}.{}:1", number / 250, number % 250));
                door.core.receive(socket, PROBE, door.now);
                came += 1;
            }
            let probe = door.accept("198.51.100.1:1");
            door.core.receive(probe, PROBE, door.now);
            probes.push_back(probe);
            most = most.max(door.core.connections.len());
            door.has_read_all();
            let reset = door.next_turn();
            assert!(probes.iter().all(|probe| !reset.contains(probe)), "{addresses} addresses");
            // It closes once it has read the answer.
            if probes.len() > 2 {
                let probe = probes.pop_front().expect("three");
                door.core.connections.connection_lost(probe, door.now);
            }
        }
        assert!(most <= 10 + limits::SOCKETS_SPARE - limits::SOCKETS_FOR_PROBES + 64, "{most}");
    }
}

#[test]
fn a_session_that_was_closed_and_keeps_its_connection_counts_like_any_other_without_one() {
    let mut door = door();
    let ended: Vec<_> = (0..10).map(|_| door.open_handshake("192.0.2.1:1", "")).collect();
    for &socket in &ended {
        door.core.connections.peer_finished(socket, door.now);
    }
    accept(&mut door, "192.0.2.2:1", 8);
    accept(&mut door, "192.0.2.3:1", PLENTY - 18).into_iter().for_each(|socket| {
        door.core.connections.closed(socket);
    });
    // Others of the process.
    door.core.connections.shared.sockets.fetch_add(PLENTY - 18 + 2, Ordering::Relaxed);
    door.now += limits::ENDING_PATIENCE;
    door.next_turn();
    door.has_read_all();
    assert_eq!(door.next_turn(), ended[..2]);
}

#[test]
fn sessions_never_go_and_are_no_shortage() {
    let mut door = door();
    for _ in 0..10 {
        door.open_handshake("192.0.2.1:1", "");
    }
    door.next_turn();
    let silent = accept(&mut door, "192.0.2.2:1", PLENTY);
    door.next_turn();
    door.has_read_all();
    assert_eq!(door.next_turn(), silent[..10]);
    assert_eq!(door.counted().sessions, 10);
}

#[test]
fn of_many_addresses_with_one_each_the_one_that_is_silent_for_longest_goes() {
    let mut door = door();
    let mut silent = Vec::new();
    for number in (0..PLENTY + limits::SOCKETS_SHORT - limits::SOCKETS_FOR_PROBES).rev() {
        silent.push(door.accept(&format!("192.0.{}.{}:1", number / 256, number % 256)));
        door.now += std::time::Duration::from_micros(10);
    }
    door.next_turn();
    let late = door.accept("198.51.100.1:1");
    door.accept("0.0.0.1:1");
    door.next_turn();
    door.has_read_all();
    assert_eq!(door.next_turn(), silent[..2]);
    door.core.receive(late, format!("{REQUEST}\r\n").as_bytes(), door.now);
    assert_eq!(door.counted().sessions, 1);
}

#[test]
fn what_is_exempt_goes_only_for_the_last_sockets_which_are_for_health_checks() {
    let mut door = door();
    let few = limits::SOCKETS_SHORT - limits::SOCKETS_FOR_PROBES;
    let exempt: Vec<_> = ["127.0.0.1:1", "10.0.0.1:1", "[::1]:1"]
        .into_iter()
        .cycle()
        .take(PLENTY + few)
        .map(|peer| door.accept(peer))
        .collect();
    door.next_turn();
    door.has_read_all();
    assert!(door.next_turn().is_empty());
    accept(&mut door, "127.0.0.1:1", 5);
    door.has_read_all();
    assert_eq!(door.next_turn(), exempt[..5]);
}

/// Connects as fast as a turn accepts, and says nothing.
#[test]
fn thirteen_thousand_silent_connections_of_one_address_keep_nobody_out() {
    let mut door = TestShard::new(&[("WS_MAX_CONNECTIONS", "1000")]);
    let (mut silent, mut most) = (0, 0);
    for turn in 0..250 {
        for _ in 0..limits::ACCEPTS_PER_TURN - 4 {
            silent += 1;
            door.accept("127.0.1.1:1");
        }
        let others = [1, 2, 3, 4].map(|number| door.accept(&format!("127.0.2.{number}:1")));
        most = most.max(door.core.connections.len());
        door.has_read_all();
        door.next_turn();
        for socket in others {
            door.core.receive(socket, format!("{REQUEST}\r\n").as_bytes(), door.now);
        }
        assert_eq!(door.counted().sessions, 4 * (turn + 1), "turn {turn}");
    }
    assert!(
        silent > 13_000 && most <= 1000 + limits::SOCKETS_SPARE,
        "{silent} came, {most} at most were held"
    );
    assert_eq!(door.refused(Refusal::MaxConnections) + door.refused(Refusal::ClientGone), 0);
    // The metrics' numbers come to nothing once all have gone.
    let shared = Arc::clone(&door.core.connections.shared);
    let sockets: Vec<_> = door.core.connections.sessions.iter().map(|session| session.socket).collect();
    for socket in sockets {
        door.core.connections.connection_lost(socket, door.now);
    }
    door.next_turn();
    assert_eq!(shared.sockets.load(Ordering::Relaxed), 0);
    assert_eq!(shared.addresses.readings(), crate::admission::addresses::Readings::default());
}

#[test]
fn shards_share_the_descriptors_of_the_process_and_each_resets_its_own() {
    let mut doors = TestShard::shards(&[("WS_MAX_CONNECTIONS", "10")], 2);
    let silent = accept(&mut doors[0], "192.0.2.1:1", PLENTY);
    accept(&mut doors[1], "192.0.2.2:1", 100);
    accept(&mut doors[1], "192.0.2.1:1", limits::SOCKETS_SPARE - limits::SOCKETS_SHORT - 100);
    for door in &mut doors {
        door.next_turn();
        door.has_read_all();
        assert!(door.next_turn().is_empty());
    }
    accept(&mut doors[1], "192.0.2.3:1", 10);
    doors[0].has_read_all();
    assert_eq!(doors[0].next_turn(), silent[..10]);
    doors[1].has_read_all();
    assert!(doors[1].next_turn().is_empty(), "the other shard has made room");
}
