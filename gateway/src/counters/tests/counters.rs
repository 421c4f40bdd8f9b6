use super::*;

#[test]
fn a_value_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() {
    let mut histogram = Histogram::default();
    for value in [0.000_1, 0.000_11, 10.0, 11.0] {
        histogram.observe(&DURATION_BUCKETS, value, 1);
    }
    assert_eq!((histogram.counts[0], histogram.counts[1]), (1, 1));
    assert_eq!((histogram.counts[15], histogram.counts[16]), (1, 1));
    assert_eq!(histogram.total(), 4);
}

#[test]
fn labels_are_counted_under_their_text() {
    let mut counts = ByLabel::default();
    counts.add(Disconnect::Idle);
    counts.add(Disconnect::Idle);
    counts.add(Disconnect::Drain);
    let found: Vec<_> = counts.iter::<Disconnect>().filter(|(_, count)| *count > 0).collect();
    assert_eq!((found, counts.total()), (vec![("idle", 2), ("drain", 1)], 3));
}
