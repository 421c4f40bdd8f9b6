//! One outbox after the other: what it costs to queue an event for a session, and to hand over what is queued.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use gateway::shard::outbox::Outbox;
use gateway::shard::outbox::frames::{FrameRef, Frames};

use super::{LIMITS, trade, value};

/// Frames that wait in an outbox when sends are gathered.
const PENDING: usize = 3;
/// Outboxes that hold the same frames, as those of one channel do.
const OUTBOXES: usize = 12_000;

pub(super) fn measure(criterion: &mut Criterion) {
    let mut frames = Frames::default();
    let references: Vec<FrameRef> = (0..PENDING).map(|_| frames.insert(Arc::new(trade(&value())))).collect();
    // A hold of our own, so that an emptied outbox does not free them.
    references.iter().for_each(|&reference| frames.hold(reference));
    let bytes: usize = references.iter().map(|&reference| frames.frame(reference).bytes.len()).sum();

    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(PENDING as u64));
    group.bench_function("push and consume", |bencher| {
        let mut outbox = Outbox::default();
        bencher.iter(|| {
            push(&mut outbox, &references, &mut frames);
            outbox.consume(black_box(bytes), &mut frames, |_| {});
            assert!(outbox.is_empty());
        });
    });
    group.bench_function("gather", |bencher| {
        let mut outbox = Outbox::default();
        push(&mut outbox, &references, &mut frames);
        let mut scratch = Vec::new();
        bencher.iter(|| {
            scratch.clear();
            black_box(&outbox).gather(&frames, &mut scratch, usize::MAX);
            assert_eq!(scratch.len(), bytes);
        });
        outbox.clear(&mut frames);
    });
    group.throughput(Throughput::Elements(OUTBOXES as u64));
    group.bench_function("find that the gathered bytes serve the next session", |bencher| {
        let mut outboxes: Vec<Outbox> = (0..OUTBOXES).map(|_| Outbox::default()).collect();
        outboxes.iter_mut().for_each(|outbox| push(outbox, &references, &mut frames));
        bencher.iter(|| {
            let is_shared =
                |outbox: &&Outbox| outbox.only_events().is_some_and(|events| events.iter().eq(&references));
            assert_eq!(black_box(&outboxes).iter().filter(is_shared).count(), OUTBOXES);
        });
        outboxes.iter_mut().for_each(|outbox| {
            outbox.clear(&mut frames);
        });
    });
    group.finish();
}

fn push(outbox: &mut Outbox, references: &[FrameRef], frames: &mut Frames) {
    for &reference in references {
        outbox.push_event(reference, frames, &LIMITS).expect("within the bounds");
    }
}
