//! Lines come out of a ring as they went in, whatever becomes of its two ends.

use super::*;
use crate::sys::has_input_within;
use std::time::Duration;

fn line(number: usize) -> Vec<u8> {
    // Every length but 0, so that lines lie across the end of the ring in every way.
    let mut line = format!("{number}:").into_bytes();
    line.resize((line.len() + number % 301).min(LINE_BYTES_MAX), b'x');
    line.push(b'\n');
    line
}

fn read_all(consumer: Consumer<'_>, ring: usize) -> Vec<u8> {
    let (mut lines, mut room) = (Vec::new(), vec![0; 3 * LINE_BYTES_MAX]);
    loop {
        let (count, read) = consumer.read(ring, &mut room);
        consumer.advance(ring, read);
        if count == 0 {
            return lines;
        }
        lines.extend_from_slice(&room[..count]);
    }
}

#[test]
fn lines_come_out_as_they_went_in_for_many_rounds_of_the_ring() {
    let rings = Arc::new(Rings::new(3).expect("rings"));
    let consumer = rings.consume();
    let mut producer = rings.produce(1, 7);
    for round in 0..40 {
        let sent: Vec<u8> = (0..997).flat_map(|number| line(round * 997 + number)).collect();
        (0..997).for_each(|number| assert!(producer.push(&line(round * 997 + number))));
        assert!(consumer.is_empty(0) && !consumer.is_empty(1));
        assert_eq!(read_all(consumer, 1), sent, "round {round}");
        assert!(consumer.is_empty(1));
    }
    assert_eq!((consumer.producer(0), consumer.producer(1)), (None, Some(7)));
    assert_eq!(consumer.used(), 2);
    drop(producer);
    assert_eq!((consumer.producer(1), consumer.dropped()), (None, 0));
}

#[test]
fn what_there_is_no_room_for_is_counted_and_what_was_there_stays() {
    let rings = Arc::new(Rings::new(1).expect("rings"));
    let consumer = rings.consume();
    let mut producer = rings.produce(0, 1);
    let line = [b'x'; 1024];
    let fit = (0..).take_while(|_| producer.push(&line)).count();
    assert_eq!(fit, RING_WORDS / (1 + 1024 / 8));
    assert!(!producer.push(&line) && consumer.dropped() == 2);
    let (count, read) = consumer.read(0, &mut [0; 10 * 1024 + 1023]);
    assert_eq!(count, 10 * 1024, "no half line");
    assert!(!producer.push(&line), "what is not done with keeps its room");
    consumer.advance(0, read);
    assert_eq!((0..20).filter(|_| producer.push(&line)).count(), 10);
    for too_long in [&[][..], &[b'x'; LINE_BYTES_MAX + 1]] {
        assert!(!producer.push(too_long));
    }
    assert_eq!(read_all(consumer, 0).len(), fit * 1024);
    assert!(producer.push(&[b'x'; LINE_BYTES_MAX]) && producer.push(b"x"));
    assert_eq!((consumer.give_up(), consumer.give_up()), ((2, 2 + consumer.dropped()), (0, 0)));
}

#[test]
fn a_successor_on_either_side_goes_on_where_the_one_before_has_ended() {
    let rings = Arc::new(Rings::new(1).expect("rings"));
    let mut lines = Vec::new();
    for number in 0..100 {
        // Its end is not said: it was killed.
        let mut producer = rings.produce(0, 1);
        assert!(producer.push(&line(number)));
        std::mem::forget(producer);
        if number % 3 == 0 {
            lines.extend(read_all(rings.consume(), 0));
        }
    }
    assert_eq!(lines, (0..100).flat_map(line).collect::<Vec<u8>>());
}

#[test]
fn a_consumer_that_waits_is_woken_once_when_there_is_much_to_read() {
    let rings = Arc::new(Rings::new(2).expect("rings"));
    let consumer = rings.consume();
    let is_woken = || has_input_within(consumer, Duration::ZERO);
    let mut producer = rings.produce(1, 1);
    consumer.doze();
    let line = [b'x'; 1016];
    let pushed = (0..).take_while(|_| producer.push(&line) && !is_woken()).count();
    assert_eq!(pushed + 1, WAKE_BYTES / 1024);
    consumer.awake().expect("an event");
    assert!(producer.push(&line) && !is_woken(), "it is awake");
    consumer.doze();
    assert!(producer.push(&line) && is_woken());
    consumer.awake().expect("an event");
    read_all(consumer, 1);
    consumer.doze();
    assert!(producer.push(&line) && !is_woken(), "there is room again");
}

#[test]
fn a_ring_that_is_no_ring_is_skipped() {
    for length in [0, LINE_BYTES_MAX as u64 + 1, u64::MAX, 4096] {
        let rings = Arc::new(Rings::new(1).expect("rings"));
        let mut producer = rings.produce(0, 1);
        assert!(producer.push(b"good\n") && producer.push(b"bad\n"));
        rings.ring(0).lines[2].store(length, Ordering::Relaxed);
        let (consumer, mut lines) = (rings.consume(), [0; 100]);
        let (count, read) = consumer.read(0, &mut lines);
        assert_eq!((&lines[..count], read), (&b"good\n"[..], 4), "{length}");
        consumer.advance(0, read);
        assert!(consumer.is_empty(0));
    }
}

#[test]
fn a_producer_and_a_consumer_at_once_lose_nothing() {
    const LINES: usize = 50_000;
    let rings = Arc::new(Rings::new(1).expect("rings"));
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut producer = rings.produce(0, 1);
            for number in 0..LINES {
                while !producer.push(&line(number)) {
                    std::thread::yield_now();
                }
            }
        });
        let (consumer, mut lines) = (rings.consume(), Vec::new());
        let total: usize = (0..LINES).map(|number| line(number).len()).sum();
        while lines.len() < total {
            lines.extend(read_all(consumer, 0));
        }
        lines
    });
    assert!(received == (0..LINES).flat_map(line).collect::<Vec<u8>>(), "they differ");
}
