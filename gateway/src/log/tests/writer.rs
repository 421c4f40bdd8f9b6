use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// A disk that fills up: what is on it, and the bytes that are free.
#[derive(Clone, Default)]
struct Disk(Rc<RefCell<(Vec<u8>, usize)>>);

impl Disk {
    fn of(free: usize) -> Self {
        let disk = Self::default();
        disk.0.borrow_mut().1 = free;
        disk
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().0.clone()).unwrap()
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (written, free) = &mut *self.0.borrow_mut();
        if *free == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(*free);
        *free -= taken;
        written.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn report(lines: u64) -> Vec<u8> {
    format!("{lines} are missing\n").into_bytes()
}

#[test]
fn lines_are_written_in_order_and_nothing_is_reported() {
    let (queue, disk) = (Queue::new(), Disk::of(100));
    let mut writer = Writer::new(&queue, disk.clone(), report);
    for line in ["one\n", "two\n", "three\n"] {
        queue.push(line.as_bytes());
    }
    (0..3).for_each(|_| writer.step());
    assert_eq!((disk.text().as_str(), queue.dropped()), ("one\ntwo\nthree\n", 0));
}

#[test]
fn a_disk_that_fills_up_costs_lines_which_are_counted_and_reported_once_there_is_room() {
    let (queue, disk) = (Queue::new(), Disk::of(6));
    let mut writer = Writer::new(&queue, disk.clone(), report);
    for line in ["one\n", "two\n", "three\n"] {
        queue.push(line.as_bytes());
    }
    (0..3).for_each(|_| writer.step());
    assert_eq!((disk.text().as_str(), queue.dropped(), writer.reported), ("one\ntw", 2, 0));
    // The report is tried again when its time comes, without another line.
    writer.report_at = Instant::now();
    writer.step();
    assert_eq!((disk.text().as_str(), queue.dropped(), writer.reported), ("one\ntw", 2, 0));
    disk.0.borrow_mut().1 = 100;
    writer.report_at = Instant::now();
    writer.step();
    // What was written of the second is a line of its own.
    assert_eq!((disk.text().as_str(), writer.reported), ("one\ntw\n2 are missing\n", 2));
    queue.push(b"four\n");
    writer.step();
    assert_eq!((disk.text().as_str(), queue.dropped()), ("one\ntw\n2 are missing\nfour\n", 2));
}

#[test]
fn a_queue_that_nobody_empties_keeps_the_first_lines_and_counts_the_others() {
    let queue = Queue::new();
    let line = [b'x'; 1000];
    for _ in 0..limits::LOG_QUEUE_BYTES / 500 {
        queue.push(&line);
    }
    let kept = limits::LOG_QUEUE_BYTES / (line.len() + LINE_OVERHEAD_BYTES);
    assert_eq!(queue.lock().lines.len(), kept);
    assert_eq!(queue.dropped(), (limits::LOG_QUEUE_BYTES / 500 - kept) as u64);
    queue.push(&vec![b'x'; limits::LOG_QUEUE_BYTES]);
    queue.push(b"short");
    assert_eq!(queue.lock().lines.len(), kept + 1, "there was room for a short one");
    // No writer: the wait is over when its time is.
    queue.flush(Duration::from_millis(1));
}

/// Takes a line when the test says so, and fails when the test has gone.
struct Pipe {
    room: Receiver<()>,
    lines: Sender<Vec<u8>>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let closed = |_| io::Error::from(ErrorKind::BrokenPipe);
        self.room.recv().map_err(closed)?;
        self.lines.send(bytes.to_vec()).map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stands_still_blocks_nobody_who_logs_and_a_flush_waits_for_one_that_reads() {
    let (queue, (room, rooms), (lines, read)) = (Queue::new(), channel(), channel());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::new(&queue, Pipe { room: rooms, lines }, report);
            (0..3).for_each(|_| writer.step());
            // As the thread does before it waits for the next.
            queue.take(Some(Instant::now()));
        });
        for line in ["one\n", "two\n", "three\n"] {
            queue.push(line.as_bytes());
        }
        queue.flush(Duration::from_millis(1));
        (0..3).for_each(|_| room.send(()).unwrap());
        queue.flush(Duration::from_secs(60));
        assert_eq!(read.try_iter().collect::<Vec<_>>(), [&b"one\n"[..], b"two\n", b"three\n"]);
    });
}

#[test]
fn a_pipe_that_is_closed_costs_every_line_and_no_more() {
    let (queue, (room, rooms), (lines, _read)) = (Queue::new(), channel(), channel());
    drop(room);
    let mut writer = Writer::new(&queue, Pipe { room: rooms, lines }, report);
    for _ in 0..10 {
        queue.push(b"line\n");
        writer.step();
    }
    assert_eq!((queue.dropped(), writer.reported), (10, 0));
}

/// Not taken at first, as by a terminal that another program made non-blocking, and then in pieces.
struct Slow(Vec<u8>, usize);

impl Write for &mut Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1 += 1;
        match self.1 % 3 {
            0 => Err(ErrorKind::WouldBlock.into()),
            1 => Err(ErrorKind::Interrupted.into()),
            _ => {
                self.0.push(bytes[0]);
                Ok(1)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_that_is_not_taken_at_once_is_tried_again() {
    let (queue, mut slow) = (Queue::new(), Slow(Vec::new(), 0));
    queue.push(b"one\n");
    Writer::new(&queue, &mut slow, report).step();
    assert_eq!((slow.0.as_slice(), queue.dropped()), (&b"one\n"[..], 0));
}
