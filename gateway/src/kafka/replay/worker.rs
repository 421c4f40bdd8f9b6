//! A replay thread: claims a partition from the board, reads it once for all cursors that wait on it, and claims the next.
//!
//! The [`Reader`] knows Kafka; the [`Scan`] and the board decide which cursors are served.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::warn;

use super::board::{self, Claim, PassOutcome};
use super::reader::{FetchedRecord, Read, ReadError, Reader};
use super::scan::{Scan, ScanStep};
use super::shared::ReplayShared;
use super::waiting_cursor::{Extent, WaitingCursor};
use crate::config::{Kafka, Topic};
use crate::event::frame::Framer;
use crate::event::partition::Partition;
use crate::kafka::record;
use crate::kafka::status::SharedStatus;
use crate::limits;
use crate::log::throttle::LogThrottle;

/// Timeout of one call for the next record; a cursor that joins waits as long.
const READ_TIMEOUT: Duration = Duration::from_millis(5);

/// How often a pass checks that its topic was not recreated.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// One replay thread.
pub(crate) struct Worker {
    shared: Arc<ReplayShared>,
    config: Arc<Kafka>,
    record_bytes_max: usize,
    age_max: Option<Duration>,
    /// Has the ids of the topics that are read.
    status: Arc<SharedStatus>,
    /// Made for the first pass, kept for the next.
    reader: Option<Reader>,
    framer: Framer,
    interrupted: LogThrottle,
    unreachable: LogThrottle,
}

/// A pass in progress.
struct ScanPass {
    partition: Partition,
    extent: Extent,
    scan: Scan,
    begun_at: Instant,
    /// When records stopped arriving although the log has more.
    silent_since: Instant,
    /// The position of a reported end below the log's extent, after which the extent was looked up again.
    ended_at: Option<i64>,
    /// The last time that the topic was found not to be recreated.
    checked_at: Instant,
}

impl Worker {
    pub(crate) fn new(
        shared: Arc<ReplayShared>,
        config: Arc<Kafka>,
        record_bytes_max: usize,
        age_max: Option<Duration>,
        status: Arc<SharedStatus>,
    ) -> Self {
        Self {
            shared,
            config,
            record_bytes_max,
            age_max,
            status,
            reader: None,
            framer: Framer::default(),
            interrupted: LogThrottle::default(),
            unreachable: LogThrottle::default(),
        }
    }

    pub(crate) fn run(mut self) {
        while let Some(claim) = self.shared.claim() {
            self.serve(claim);
        }
    }

    /// Does one pass over the claimed partition, from its beginning to its release.
    fn serve(&mut self, claim: Claim) {
        let Claim { partition, client, mut waiting, trouble } = claim;
        self.wait_for_more_cursors(partition, &mut waiting);
        let reader = self.reader.take().map_or_else(|| Reader::new(&self.config), Ok);
        let (mut left, failure) = match &reader {
            Ok(reader) => self.run_pass(reader, partition, client, waiting),
            Err(error) => (waiting, Some(error.clone())),
        };
        // A silent reader may itself be the fault.
        self.reader = reader.ok().filter(|_| failure != Some(ReadError::Silence));
        let mut outcome = PassOutcome::Read;
        if let Some(error) = failure {
            outcome = PassOutcome::Failed;
            let now = Instant::now();
            let topic = self.topic(partition).name.clone();
            if let Some(suppressed) = self.interrupted.allow(now) {
                let partition = partition.number;
                warn!(topic, partition, %error, suppressed, "a replay was interrupted; retrying");
            }
            if let Some(trouble) = trouble {
                let (given_up, patient) = trouble.give_up(left, now);
                self.shared.send(given_up);
                left = patient;
            }
        }
        self.shared.release(partition, left, outcome);
    }

    /// Waits for cursors that arrive together with the first, as after the end of a gateway that had them all: one pass serves
    /// them together, and a cursor that arrives after the pass has begun may wait for another pass.
    fn wait_for_more_cursors(&self, partition: Partition, waiting: &mut Vec<WaitingCursor>) {
        let until = Instant::now() + limits::REPLAY_GATHER_MAX;
        while Instant::now() < until && !self.shared.is_stopped() {
            self.shared.pause(partition, until.min(Instant::now() + limits::REPLAY_GATHER));
            let arrivals = self.shared.arrivals(partition);
            if arrivals.is_empty() {
                return;
            }
            waiting.extend(arrivals);
        }
    }

    /// The cursors that the pass did not serve, and why it ended early.
    fn run_pass(
        &mut self,
        reader: &Reader,
        partition: Partition,
        client: IpAddr,
        waiting: Vec<WaitingCursor>,
    ) -> (Vec<WaitingCursor>, Option<ReadError>) {
        // The order matters: the records that are read then belong to the topic that exists now, or to a later one.
        let extent = reader.extent(&self.topic(partition).name, partition.number);
        let extent = match extent.and_then(|extent| self.check_topic(reader, partition).map(|()| extent)) {
            Ok(extent) => extent,
            Err(error) => return (waiting, Some(error)),
        };
        let young = match self.first_within_age(reader, partition, extent) {
            Ok(young) => young,
            Err(error) => return (waiting, Some(error)),
        };
        let floor = extent.floor(young);
        let waiting = self.refuse_unreachable(partition, extent, waiting);
        let now = Instant::now();
        let Some(start) = board::start(&waiting, client, floor.offset, now) else { return (waiting, None) };
        if let Err(error) = reader.begin(&self.topic(partition).name, partition.number, start) {
            return (waiting, Some(error));
        }
        let scan = Scan::new(floor, start);
        let mut pass = ScanPass {
            partition,
            extent,
            scan,
            begun_at: now,
            silent_since: now,
            ended_at: None,
            checked_at: now,
        };
        self.admit(&mut pass, board::in_turns(waiting, client), now);
        let error = self.read_on(reader, &mut pass).err();
        let left = pass.scan.end(Instant::now());
        self.shared.send(pass.scan.take_answers());
        reader.end();
        // A stop after some records is not a failure: the next pass begins where this one ended.
        (left, error.filter(|_| pass.scan.records() == 0))
    }

    /// The first offset whose record is within the maximum age; `None` if all are.
    fn first_within_age(
        &self,
        reader: &Reader,
        partition: Partition,
        extent: Extent,
    ) -> Result<Option<i64>, ReadError> {
        let Some(age_max) = self.age_max else { return Ok(None) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_ms = now.saturating_sub(age_max).as_millis() as i64;
        let found = reader.first_since(&self.topic(partition).name, partition.number, since_ms)?;
        Ok(Some(found.unwrap_or(extent.high)))
    }

    /// Answers the cursors that the log does not reach, and returns the others.
    fn refuse_unreachable(
        &mut self,
        partition: Partition,
        extent: Extent,
        waiting: Vec<WaitingCursor>,
    ) -> Vec<WaitingCursor> {
        let (waiting, strange): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|waiting| waiting.is_of(extent));
        if !strange.is_empty() {
            // Clients choose their positions.
            if let Some(suppressed) = self.unreachable.allow(Instant::now()) {
                let Topic { name, .. } = self.topic(partition);
                warn!(
                    topic = name,
                    partition = partition.number,
                    low = extent.low,
                    high = extent.high,
                    cursors = strange.len(),
                    suppressed,
                    "records cannot be replayed: the log ends before them"
                );
            }
            self.shared.send(strange.into_iter().map(WaitingCursor::give_up).collect());
        }
        waiting
    }

    /// Reads until no cursor wants more, or other partitions wait.
    fn read_on(&mut self, reader: &Reader, pass: &mut ScanPass) -> Result<(), ReadError> {
        loop {
            let now = Instant::now();
            let arrivals = self.shared.arrivals(pass.partition);
            self.admit(pass, arrivals, now);
            if now >= pass.checked_at + TOPIC_CHECK_INTERVAL {
                self.check_topic(reader, pass.partition)?;
                pass.checked_at = now;
            }
            pass.scan.tick(now);
            self.shared.send(pass.scan.take_answers());
            if self.shared.is_stopped() || self.must_yield(pass, now) {
                return Ok(());
            }
            match pass.scan.next_step(now) {
                ScanStep::Read => {
                    if self.read_some(reader, pass, now)? && self.has_ended(reader, pass)? {
                        // Cursors that want more than the log had learn the log's new extent in the next pass.
                        pass.scan.tick(now);
                        if pass.scan.next_step(now) == ScanStep::Read {
                            return Ok(());
                        }
                    }
                }
                ScanStep::Pause(until) => {
                    self.shared.pause(pass.partition, until);
                    pass.silent_since = Instant::now();
                }
                ScanStep::End => return Ok(()),
            }
        }
    }

    /// Whether the topic is still the one that the shards read.
    fn check_topic(&self, reader: &Reader, partition: Partition) -> Result<(), ReadError> {
        let Some(known) = self.status.topic_id(partition.topic) else { return Ok(()) };
        match reader.topic_id(&self.topic(partition).name)? {
            Some(id) if id != known => Err(ReadError::Recreated),
            _ => Ok(()),
        }
    }

    /// Adds cursors to the pass; those that it cannot serve wait on the board.
    fn admit(&self, pass: &mut ScanPass, waiting: Vec<WaitingCursor>, now: Instant) {
        let left: Vec<_> =
            waiting.into_iter().filter_map(|waiting| pass.scan.join(waiting, now).err()).collect();
        if !left.is_empty() {
            self.shared.leave(pass.partition, left);
        }
    }

    fn must_yield(&self, pass: &ScanPass, now: Instant) -> bool {
        now >= pass.begun_at + limits::REPLAY_TURN
            && (pass.scan.has_overdue(now) || self.shared.others_wait(pass.partition, now))
    }

    /// Reads a number of records, or those that arrive within a moment. Returns whether the end of the log was reached.
    fn read_some(&mut self, reader: &Reader, pass: &mut ScanPass, now: Instant) -> Result<bool, ReadError> {
        let records_before = pass.scan.records();
        let mut result = Ok(false);
        for _ in 0..limits::REPLAY_RECORDS_PER_LOOK {
            match reader.read(READ_TIMEOUT) {
                Read::Record(fetched) => {
                    self.hand_out(&fetched, pass, now);
                    pass.silent_since = now;
                    if pass.scan.wants_a_look() {
                        break;
                    }
                    continue;
                }
                Read::End => result = Ok(true),
                Read::Refused => result = Err(ReadError::Refused),
                Read::Nothing if now >= pass.silent_since + limits::REPLAY_SILENCE_MAX => {
                    result = Err(ReadError::Silence);
                }
                Read::Nothing => {}
            }
            break;
        }
        self.shared.count_records(pass.scan.records() - records_before);
        result
    }

    fn hand_out(&mut self, fetched: &FetchedRecord<'_>, pass: &mut ScanPass, now: Instant) {
        let Topic { name, kind } = &self.config.topics[pass.partition.topic];
        if !fetched.is_of(name, pass.partition.number) {
            return;
        }
        let Ok(record) = fetched.record(kind, pass.partition) else {
            return pass.scan.skip(fetched.offset());
        };
        let framer = &mut self.framer;
        pass.scan.record(&record, now, || record::frame(framer, &record, self.record_bytes_max, now).0);
    }

    /// Whether a broker's report of the log's end is confirmed; then all offsets below the log's extent are processed.
    ///
    /// The last offsets of a log may have no records (transactions, compaction), so the end may be reported below the extent.
    /// But a broker that has just become the leader may not know yet how far the log extends: it is asked for the extent again,
    /// which it answers only when it knows, and must report the end once more.
    fn has_ended(&self, reader: &Reader, pass: &mut ScanPass) -> Result<bool, ReadError> {
        let position = pass.scan.position();
        if position >= pass.extent.high || pass.ended_at == Some(position) {
            pass.scan.advance_to(pass.extent.high);
            return Ok(true);
        }
        let Topic { name, .. } = self.topic(pass.partition);
        pass.extent = reader.extent(name, pass.partition.number)?;
        pass.ended_at = Some(position);
        reader.begin(name, pass.partition.number, position)?;
        Ok(false)
    }

    fn topic(&self, partition: Partition) -> &Topic {
        &self.config.topics[partition.topic]
    }
}
