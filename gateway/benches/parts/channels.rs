//! The index of channels: 10,000 tokens, a session on each.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use gateway::event::channel_index::Channels;
use protocol::Channel;

const TOKENS: usize = 10_000;
const KIND: &str = "trade";

pub(super) fn measure(criterion: &mut Criterion) {
    let tokens: Vec<String> = (0..TOKENS).map(|number| format!("TOKEN{number}")).collect();
    let names: Vec<String> = tokens.iter().map(|token| format!("{token}.{KIND}")).collect();
    // Sessions do not come and events do not arrive in the order of the tokens.
    let mut order: Vec<usize> = (0..TOKENS).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);

    let subscribed = || {
        let mut channels = Channels::default();
        order.iter().for_each(|&number| assert!(channels.subscribe(number, &names[number])));
        channels
    };
    let mut group = criterion.benchmark_group("channels");
    group.throughput(Throughput::Elements(TOKENS as u64));
    group.bench_function("subscribe", |bencher| {
        bencher.iter_with_large_drop(subscribed);
    });
    group.bench_function("unsubscribe", |bencher| {
        let unsubscribe = |channels: &mut Channels| {
            names.iter().enumerate().for_each(|(session, name)| assert!(channels.unsubscribe(session, name)));
        };
        bencher.iter_batched_ref(subscribed, unsubscribe, BatchSize::PerIteration);
    });
    group.bench_function("lookup", |bencher| {
        let mut channels = subscribed();
        bencher.iter(|| {
            let mut sessions = 0;
            for &number in &order {
                let channel = Channel { token: &tokens[number], kind: KIND };
                channels.subscribers(black_box(channel), |session| sessions += session);
            }
            sessions
        });
    });
    group.finish();
}
