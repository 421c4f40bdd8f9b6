//! The queues between shards: what is told and asked comes, each once and in order, however full they are.

use std::collections::VecDeque;

use wire::SocketId;

use super::*;

fn pull_id(number: u32) -> PullId {
    PullId { socket: SocketId::imagined(0, 0), cursor: number }
}

fn events(number: u32) -> OwnerEvent {
    OwnerEvent::StartReply(StartReply {
        pull_id: pull_id(number),
        cut: Vec::new(),
        behind: Vec::new(),
        starts: Vec::new(),
    })
}

fn request(number: u32) -> Request {
    Request::Start(StartRequest { pull_id: pull_id(number), wants_cut: false, starts: Arc::new([]) })
}

fn number_of_event((peer, events): (usize, OwnerEvent)) -> (usize, u32) {
    match events {
        OwnerEvent::StartReply(begun) => (peer, begun.pull_id.cursor),
        other => panic!("{other:?}"),
    }
}

fn number_of_request((peer, request): (usize, Request)) -> (usize, u32) {
    match request {
        Request::Start(begin) => (peer, begin.pull_id.cursor),
        other => panic!("{other:?}"),
    }
}

fn two(events: usize, requests: usize) -> (Mesh, Mesh) {
    let meshes: [Mesh; 2] = Mesh::connect(2, events, requests).try_into().ok().expect("two");
    meshes.into()
}

/// Tells a peer as much as there is room for; how much that was.
fn fill_events(mesh: &mut Mesh, peer: usize) -> u32 {
    let mut told = 0;
    while mesh.has_room() {
        mesh.tell(peer, events(told));
        told += 1;
        assert!(told < 10_000, "a queue without a bound");
    }
    told
}

#[test]
fn a_shard_knows_itself_and_its_peers() {
    let meshes = Mesh::connect(3, 4, 4);
    for (shard, mesh) in meshes.iter().enumerate() {
        assert_eq!((mesh.shard(), mesh.shards()), (shard, 3));
        assert_eq!(mesh.everyone().iter().collect::<Vec<_>>(), [0, 1, 2]);
        let peers: Vec<usize> = (0..3).filter(|&peer| peer != shard).collect();
        assert_eq!(mesh.peers().iter().collect::<Vec<_>>(), peers);
    }
    let mut alone = Mesh::connect(1, 4, 4).remove(0);
    assert!(alone.has_room() && alone.peers().is_empty());
    alone.tell(0, events(1));
    assert!(alone.next_event().is_none() && !alone.has_backlog(), "nobody talks to itself");
}

#[test]
fn news_for_which_there_was_room_is_with_the_peer_and_what_was_told_without_is_not_lost() {
    let (mut owner, mut home) = two(8, 8);
    let told = fill_events(&mut owner, 1);
    assert!(told >= 8, "{told}");
    assert!(!owner.has_backlog(), "all that there was room for is with the peer");
    (told..told + 20).for_each(|number| owner.tell(1, events(number)));
    assert!(owner.has_backlog() && !owner.has_room());
    let mut heard = Vec::new();
    loop {
        heard.extend(std::iter::from_fn(|| home.next_event()).map(number_of_event));
        if !owner.has_backlog() {
            break;
        }
        owner.flush();
    }
    heard.extend(std::iter::from_fn(|| home.next_event()).map(number_of_event));
    assert_eq!(heard, (0..told + 20).map(|number| (0, number)).collect::<Vec<_>>());
    assert!(owner.has_room());
}

#[test]
fn a_full_queue_to_one_peer_leaves_no_room_for_any_peer() {
    let mut meshes = Mesh::connect(3, 4, 4);
    while meshes[0].has_room() {
        meshes[0].tell(2, events(0));
    }
    assert!(meshes[1].has_room() && meshes[2].has_room(), "the others have room for all of theirs");
    assert!(meshes[1].next_event().is_none());
    assert!(meshes[2].next_event().is_some());
    assert!(meshes[0].has_room());
}

#[test]
fn a_request_is_taken_only_while_its_answer_has_room_and_news_in_any_case() {
    let (mut one, mut other) = two(4, 4);
    other.ask(0, request(1));
    let told = fill_events(&mut one, 1);
    fill_events(&mut other, 0);
    assert!(one.next_request().is_none(), "its answer would have no room");
    assert!(one.next_event().is_some(), "both are full, and still each hears the other");
    assert!(one.next_request().is_none());
    for _ in 0..told {
        assert!(other.next_event().is_some());
    }
    assert_eq!(one.next_request().map(number_of_request), Some((1, 1)));
    assert!(one.next_request().is_none(), "once");
}

#[test]
fn requests_without_room_wait_in_order_and_a_shard_with_many_of_them_is_backed_up() {
    let (mut home, mut owner) = two(4, 4);
    let mut asked = 0;
    while !home.is_backed_up() {
        home.ask(1, request(asked));
        asked += 1;
        assert!(asked as usize <= limits::MESH_BACKLOG + 100, "a backlog without a bound");
    }
    assert!(asked as usize > limits::MESH_BACKLOG && home.has_backlog());
    let mut heard = Vec::new();
    while heard.len() < asked as usize {
        while let Some(request) = owner.next_request() {
            heard.push(number_of_request(request));
        }
        home.flush();
        assert!(!home.is_backed_up(), "there was room for more than was over the bound");
    }
    assert_eq!(heard, (0..asked).map(|number| (0, number)).collect::<Vec<_>>());
    assert!(!home.has_backlog() && owner.next_request().is_none());
}

#[test]
fn interest_is_heard_by_every_peer_before_what_is_asked_after_it() {
    let mut meshes = Mesh::connect(3, 4, 4);
    let interest = |name: &str| Interest { name: name.into(), is_wanted: true };
    meshes[1].announce(vec![interest("BTC.trade"), interest("*.social")]);
    let others = [0, 2];
    others.iter().for_each(|&peer| meshes[1].ask(peer, request(7)));
    for peer in others {
        for name in ["BTC.trade", "*.social"] {
            match meshes[peer].next_request() {
                Some((1, Request::Interest(heard))) => assert_eq!(&*heard.name, name),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(meshes[peer].next_request().map(number_of_request), Some((1, 7)));
    }
}

#[test]
fn peers_take_turns() {
    let mut meshes = Mesh::connect(3, 8, 8);
    for peer in [1, 2] {
        (0..4).for_each(|number| meshes[peer].tell(0, events(number)));
        (0..4).for_each(|number| meshes[peer].ask(0, request(number)));
    }
    let heard: Vec<usize> = std::iter::from_fn(|| meshes[0].next_event()).map(|(peer, _)| peer).collect();
    assert_eq!(heard.len(), 8);
    assert!(heard.windows(2).all(|two| two[0] != two[1]), "{heard:?}");
    let heard: Vec<usize> = std::iter::from_fn(|| meshes[0].next_request()).map(|(peer, _)| peer).collect();
    assert_eq!(heard.len(), 8);
    assert!(heard.windows(2).all(|two| two[0] != two[1]), "{heard:?}");
}

#[test]
fn peers_that_were_written_to_are_woken_once() {
    let mut meshes = Mesh::connect(3, 4, 4);
    assert!(meshes[0].take_touched().is_empty());
    meshes[0].tell(2, events(0));
    assert_eq!(meshes[0].take_touched().iter().collect::<Vec<_>>(), [2]);
    assert!(meshes[0].take_touched().is_empty());
    meshes[0].announce(vec![Interest { name: "*".into(), is_wanted: true }]);
    assert_eq!(meshes[0].take_touched().iter().collect::<Vec<_>>(), [1, 2]);
    // What only waits for room wakes nobody; what finds it later does.
    while !meshes[0].has_backlog() {
        meshes[0].ask(1, request(0));
    }
    meshes[0].take_touched();
    meshes[0].ask(1, request(0));
    assert!(meshes[0].take_touched().is_empty());
    while meshes[1].next_request().is_some() {}
    meshes[0].flush();
    assert_eq!(meshes[0].take_touched().iter().collect::<Vec<_>>(), [1]);
}

/// What is on its way from one shard to another, by our own account.
#[derive(Default)]
struct OnItsWay {
    events: VecDeque<u32>,
    requests: VecDeque<u32>,
}

#[test]
fn whatever_the_order_of_turns_all_that_is_said_arrives_once_and_in_order() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let shards = random.usize(2..5);
        let mut meshes = Mesh::connect(shards, random.usize(1..6), random.usize(1..6));
        let mut on_its_way: Vec<Vec<OnItsWay>> =
            (0..shards).map(|_| (0..shards).map(|_| OnItsWay::default()).collect()).collect();
        for number in 0..2_000 {
            let shard = random.usize(..shards);
            let peer = (shard + random.usize(1..shards)) % shards;
            match random.u8(..8) {
                0..=1 if meshes[shard].has_room() => {
                    meshes[shard].tell(peer, events(number));
                    on_its_way[shard][peer].events.push_back(number);
                }
                2..=3 => {
                    meshes[shard].ask(peer, request(number));
                    on_its_way[shard][peer].requests.push_back(number);
                }
                4 => meshes[shard].flush(),
                5..=6 => hear_event(&mut meshes[shard], &mut on_its_way, seed),
                _ => hear_request(&mut meshes[shard], &mut on_its_way, seed),
            }
        }
        // Enough rounds for the longest backlog through the shortest queue.
        for _ in 0..2_000 {
            for mesh in &mut meshes {
                mesh.flush();
                hear_event(mesh, &mut on_its_way, seed);
                hear_request(mesh, &mut on_its_way, seed);
            }
        }
        let left = on_its_way.iter().flatten().map(|it| it.events.len() + it.requests.len()).sum::<usize>();
        assert_eq!(left, 0, "seed {seed}: lost");
        assert!(meshes.iter().all(|mesh| !mesh.has_backlog() && mesh.has_room()), "seed {seed}");
    }
}

fn hear_event(mesh: &mut Mesh, on_its_way: &mut [Vec<OnItsWay>], seed: u64) {
    if let Some((peer, number)) = mesh.next_event().map(number_of_event) {
        assert_eq!(Some(number), on_its_way[peer][mesh.shard()].events.pop_front(), "seed {seed}");
    }
}

fn hear_request(mesh: &mut Mesh, on_its_way: &mut [Vec<OnItsWay>], seed: u64) {
    if let Some((peer, number)) = mesh.next_request().map(number_of_request) {
        assert_eq!(Some(number), on_its_way[peer][mesh.shard()].requests.pop_front(), "seed {seed}");
    }
}
