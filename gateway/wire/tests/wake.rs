//! Sleep and wake: actions of other threads and the kernel after `may_sleep` returned true end the sleep.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use support::{Happened, Owner, options, slept_less};
use wire::SendOutcome;

/// A sleep of this length is a lost wake-up, even on a busy machine.
const LONG: Duration = Duration::from_secs(30);
/// A sleep that nothing ends.
const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_wake_from_another_thread_ends_the_sleep_and_is_used_up_by_it() {
    let mut owner = Owner::new(&options());
    for _ in 0..3 {
        assert!(owner.driver.may_sleep().expect("the ring works"));
        let waker = owner.driver.waker();
        let thread = std::thread::spawn(move || waker.wake());
        assert!(slept_less(&mut owner.driver, LONG));
        thread.join().expect("the waker");
        owner.turn();
        assert!(owner.driver.may_sleep().expect("the ring works"));
        assert!(!slept_less(&mut owner.driver, SHORT));
    }
}

#[test]
fn a_wake_before_the_sleep_prevents_it() {
    let mut owner = Owner::new(&options());
    for _ in 0..3 {
        // With the poll not armed yet, and with the poll that a sleep without a wake-up leaves behind.
        assert!(owner.driver.may_sleep().expect("the ring works"));
        owner.driver.waker().wake();
        owner.driver.waker().wake();
        assert!(slept_less(&mut owner.driver, LONG));
        owner.turn();
        assert!(owner.driver.may_sleep().expect("the ring works"));
        assert!(!slept_less(&mut owner.driver, SHORT));
        owner.driver.waker().wake();
        assert!(!owner.driver.may_sleep().expect("the ring works"));
        owner.turn();
    }
}

/// Accepts, bytes and a FIN wake a sleeper through the ring alone: no thread calls a waker.
#[test]
fn what_the_ring_gets_ends_the_sleep() {
    let (mut owner, address) = Owner::listening(&options());
    let mut sleeps = 0;
    let mut until_woken = |owner: &mut Owner| {
        while owner.happened.is_empty() {
            owner.sleep();
            owner.turn();
        }
        sleeps += 1;
        owner.happened.pop_front().expect("not empty")
    };
    let after_a_while = |act: Box<dyn FnOnce() -> TcpStream + Send>| {
        std::thread::spawn(move || {
            std::thread::sleep(SHORT);
            act()
        })
    };
    let peer = after_a_while(Box::new(move || TcpStream::connect(address).expect("somebody listens")));
    let Happened::Accepted(socket, _) = until_woken(&mut owner) else { panic!("instead of an accept") };
    let mut peer = peer.join().expect("connects");
    let peer = after_a_while(Box::new(move || {
        peer.write_all(b"hello").expect("connected");
        peer
    }));
    assert_eq!(until_woken(&mut owner), Happened::Received(socket, b"hello".to_vec()));
    drop(peer.join().expect("writes"));
    assert_eq!(until_woken(&mut owner), Happened::PeerFinished(socket));
    assert_eq!(sleeps, 3);
}

/// A signal to the sleeping thread is a short sleep.
#[test]
fn a_nudge_ends_the_sleep() {
    wire::accept_nudges().expect("a handler");
    let (named, name) = std::sync::mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        let mut owner = Owner::new(&options());
        // The last part of /proc/thread-self's target is the thread's number.
        let thread = std::fs::read_link("/proc/thread-self").expect("proc(5) is mounted");
        let thread = thread.file_name().and_then(|name| name.to_str()?.parse().ok());
        named.send(thread.expect("a number")).expect("somebody listens");
        assert!(owner.driver.may_sleep().expect("the ring works"));
        assert!(slept_less(&mut owner.driver, LONG));
    });
    let thread: i32 = name.recv().expect("it has started");
    while !sleeper.is_finished() {
        // A signal before the sleep does not end it.
        std::thread::sleep(SHORT);
        let _ = wire::nudge(thread);
    }
    sleeper.join().expect("slept less");
}

/// A peer on another thread answers each byte with the next; a lost wake-up stops the exchange, and `Owner::sleep` fails
/// after 30 s.
#[test]
fn no_wake_up_is_lost_between_may_sleep_and_the_wait() {
    const ROUNDS: usize = 20_000;
    let (mut owner, address) = Owner::listening(&options());
    let mut peer = TcpStream::connect(address).expect("somebody listens");
    peer.set_nodelay(true).expect("set");
    let socket = owner.accepted();
    let thread = std::thread::spawn(move || {
        let mut byte = [0];
        for round in 0..ROUNDS {
            peer.read_exact(&mut byte).expect("the owner's byte");
            // Moves the answer across all points of the owner's path into its sleep.
            for _ in 0..round % 400 {
                std::hint::spin_loop();
            }
            peer.write_all(&byte).expect("the answer");
        }
    });
    for round in 0..ROUNDS {
        assert_eq!(owner.send(socket, &[round as u8]), SendOutcome::Sent);
        assert_eq!(owner.next(), Happened::Received(socket, vec![round as u8]));
    }
    thread.join().expect("the peer");
    println!("{} sleeps in {ROUNDS} rounds", owner.sleeps);
    assert!(owner.sleeps > 0, "the owner slept at least once");
}

/// The same with a waker: a message that is visible before `wake` is always seen after the sleep.
#[test]
fn a_message_published_before_the_wake_is_never_slept_through() {
    const MESSAGES: u64 = 50_000;
    let mut owner = Owner::new(&options());
    let published = Arc::new(AtomicU64::new(0));
    let seen = Arc::new(AtomicU64::new(0));
    let start = Arc::new(Barrier::new(2));
    let thread = std::thread::spawn({
        let (published, seen, start) = (published.clone(), seen.clone(), start.clone());
        let waker = owner.driver.waker();
        move || {
            start.wait();
            for message in 1..=MESSAGES {
                published.store(message, Ordering::Release);
                waker.wake();
                while message % 7 != 0 && seen.load(Ordering::Acquire) != message {
                    std::thread::yield_now();
                }
            }
        }
    });
    start.wait();
    let mut last = 0;
    while last < MESSAGES {
        owner.turn();
        // The owner's protocol: the driver first (it drains the eventfd), then every other source, then the sleep.
        let may_sleep = owner.driver.may_sleep().expect("the ring works");
        let now = published.load(Ordering::Acquire);
        if now != last {
            last = now;
            seen.store(last, Ordering::Release);
        } else if may_sleep {
            assert!(slept_less(&mut owner.driver, LONG), "slept through a message");
        }
    }
    thread.join().expect("the publisher");
}
