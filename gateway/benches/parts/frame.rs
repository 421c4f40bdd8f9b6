//! Record -> frame.

use std::hint::black_box;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, Throughput};
use gateway::event::frame::Framer;

use super::{RECORD_BYTES_MAX, padded_value, record, value};

pub(super) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let values =
        [("json", value()), ("json", padded_value(4096)), ("not json", b"price 42.5 \"up\" ".repeat(16))];
    for (name, value) in values {
        group.throughput(Throughput::Bytes(value.len() as u64));
        group.bench_function(BenchmarkId::new(name, value.len()), |bencher| {
            let mut framer = Framer::default();
            let polled_at = Instant::now();
            bencher.iter(|| framer.event(black_box(&record(&value)), RECORD_BYTES_MAX, polled_at));
        });
    }
    group.finish();
}
