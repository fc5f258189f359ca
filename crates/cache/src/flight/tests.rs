use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

const KEY: [u8; 32] = [1; 32];

fn flights(buffer_bytes_max: usize) -> Arc<Flights<u16>> {
    Flights::new(FlightLimits { buffer_bytes_max, window_bytes: usize::MAX, waiters_max: 8 })
}

fn lead(flights: &Arc<Flights<u16>>) -> (Lead<u16>, Reader<u16>) {
    match flights.join(KEY) {
        Joined::Lead(lead, reader) => (lead, reader),
        Joined::Follow(_) | Joined::Pass => panic!("somebody leads already"),
    }
}

fn follow(flights: &Arc<Flights<u16>>) -> Reader<u16> {
    match flights.join(KEY) {
        Joined::Follow(reader) => reader,
        Joined::Lead(..) | Joined::Pass => panic!("nothing to follow"),
    }
}

fn passes(flights: &Arc<Flights<u16>>) -> bool {
    matches!(flights.join(KEY), Joined::Pass)
}

/// All that a reader gets until the end, and how it ends.
async fn read_all(mut reader: Reader<u16>) -> (Vec<u8>, Option<FlightEnd>) {
    let mut bytes = Vec::new();
    loop {
        match reader.chunk().await {
            Some(Ok(chunk)) => bytes.extend_from_slice(&chunk),
            Some(Err(end)) => return (bytes, Some(end)),
            None => return (bytes, None),
        }
    }
}

fn chunk(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[tokio::test]
async fn followers_get_everything_from_the_start_however_late_they_come() {
    let flights = flights(1 << 20);
    let (lead, own) = lead(&flights);
    let early = follow(&flights);
    lead.head(200);
    lead.push(chunk("one "));
    let mut late = follow(&flights);
    lead.push(chunk("two"));
    lead.finish();
    let later = follow(&flights);
    assert_eq!(late.head().await, Ok(200));
    for reader in [own, early, late, later] {
        assert_eq!(read_all(reader).await, (b"one two".to_vec(), None));
    }
    drop(lead);
    assert!(flights.is_empty());
}

#[tokio::test]
async fn a_leaders_client_that_leaves_does_not_end_the_flight() {
    let flights = flights(1 << 20);
    let (lead, own) = lead(&flights);
    let follower = follow(&flights);
    drop(own);
    assert!(lead.abandoned().now_or_never().is_none());
    lead.push(chunk("still"));
    lead.finish();
    drop(lead);
    assert_eq!(read_all(follower).await.0, b"still");
}

#[test]
fn a_leader_is_told_once_that_others_read_and_at_once_if_they_do_already() {
    for others_before in [0, 1] {
        let flights = flights(1 << 20);
        let told = Arc::new(AtomicUsize::new(0));
        let (lead, _own) = lead(&flights);
        let _before: Vec<_> = (0..others_before).map(|_| follow(&flights)).collect();
        let count = told.clone();
        lead.when_shared(move || _ = count.fetch_add(1, Ordering::Relaxed));
        assert_eq!(told.load(Ordering::Relaxed), others_before);
        let _others = [follow(&flights), follow(&flights)];
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn the_last_to_leave_wakes_the_pump_and_closes_the_flight() {
    let flights = flights(1 << 20);
    let (lead, own) = lead(&flights);
    let follower = follow(&flights);
    let waits = tokio::time::timeout(Duration::from_secs(5), lead.abandoned());
    let (told, ()) = tokio::join!(waits, async {
        drop(own);
        tokio::task::yield_now().await;
        drop(follower);
    });
    told.unwrap();
    // Who comes now must not wait on a generation that is being stopped.
    let (second, reader) = match flights.join(KEY) {
        Joined::Lead(lead, reader) => (lead, reader),
        Joined::Follow(_) | Joined::Pass => panic!("joined an abandoned flight"),
    };
    drop(lead);
    assert_eq!(flights.len(), 1, "the first lead removed the second's flight");
    second.finish();
    drop(second);
    assert_eq!(read_all(reader).await, (Vec::new(), None));
    assert!(flights.is_empty());
}

#[tokio::test]
async fn a_follower_before_the_pump_notices_keeps_the_flight() {
    let flights = flights(1 << 20);
    let (lead, own) = lead(&flights);
    drop(own);
    let follower = follow(&flights);
    assert!(lead.abandoned().now_or_never().is_none());
    lead.finish();
    drop(lead);
    assert_eq!(read_all(follower).await, (Vec::new(), None));
}

#[tokio::test]
async fn readers_learn_how_a_flight_ended() {
    for (end, expected) in
        [(Some(Code::UpstreamBroken), FlightEnd::Failed(Code::UpstreamBroken)), (None, FlightEnd::LeaderGone)]
    {
        let flights = flights(1 << 20);
        let (lead, mut own) = lead(&flights);
        let follower = follow(&flights);
        lead.push(chunk("half"));
        if let Some(code) = end {
            lead.fail(code);
            assert!(passes(&flights), "joined a failed flight");
        }
        drop(lead);
        assert_eq!(own.head().await, Err(expected));
        assert_eq!(read_all(follower).await, (b"half".to_vec(), Some(expected)));
        assert!(flights.is_empty());
    }
}

#[tokio::test]
async fn past_the_buffer_nobody_joins_and_laggards_are_cut_but_never_the_fastest() {
    let flights = flights(1000);
    let (lead, mut fast) = lead(&flights);
    let mut slow = follow(&flights);
    for _ in 0..10 {
        lead.push(Bytes::from(vec![b'x'; 200]));
        assert!(matches!(fast.chunk().await, Some(Ok(_))));
    }
    assert!(passes(&flights));
    assert_eq!(slow.chunk().await, Some(Err(FlightEnd::Lagged)));
    lead.finish();
    assert_eq!(read_all(fast).await, (Vec::new(), None));
}

#[tokio::test]
async fn a_lone_reader_sets_the_pace_and_is_never_cut() {
    let flights =
        Flights::<u16>::new(FlightLimits { buffer_bytes_max: 1000, window_bytes: 300, waiters_max: 8 });
    let (lead, reader) = lead(&flights);
    let pump = async {
        for _ in 0..50 {
            lead.room().await;
            lead.push(Bytes::from(vec![b'x'; 200]));
            assert!(lead.flight.lock().kept_bytes() <= 1000 + 300);
        }
        lead.finish();
    };
    let ((), (bytes, end)) = tokio::join!(pump, read_all(reader));
    assert_eq!((bytes.len(), end), (50 * 200, None));
}

#[tokio::test]
async fn the_pump_waits_for_the_fastest_reader_and_not_for_the_slowest() {
    let flights =
        Flights::<u16>::new(FlightLimits { buffer_bytes_max: 10_000, window_bytes: 300, waiters_max: 8 });
    let (lead, mut fast) = lead(&flights);
    let _slow = follow(&flights);
    lead.push(Bytes::from(vec![b'x'; 400]));
    assert!(lead.room().now_or_never().is_none());
    assert!(fast.chunk().await.is_some());
    assert!(lead.room().now_or_never().is_some());
    drop(fast);
    assert!(lead.room().now_or_never().is_none(), "the slow one is the fastest now");
}

#[tokio::test]
async fn too_many_waiters_pass() {
    let flights = flights(1 << 20);
    let (_lead, _own) = lead(&flights);
    let _others: Vec<_> = (0..7).map(|_| follow(&flights)).collect();
    assert!(passes(&flights));
}

#[tokio::test(start_paused = true)]
async fn an_uncacheable_key_passes_until_its_mark_ends() {
    let flights = flights(1 << 20);
    flights.mark_uncacheable(KEY, Instant::now() + Duration::from_secs(10));
    assert!(flights.is_uncacheable(&KEY) && passes(&flights));
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(!flights.is_uncacheable(&KEY));
    let (_lead, _reader) = lead(&flights);
}

#[tokio::test(start_paused = true)]
async fn marks_are_bounded_and_the_first_to_end_goes() {
    let flights = flights(1 << 20);
    let key = |number: usize| {
        let mut key = [0; 32];
        key[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        key
    };
    for number in 0..=UNCACHEABLE_MAX {
        let until = Instant::now() + Duration::from_secs(1 + number as u64);
        flights.mark_uncacheable(key(number), until);
    }
    assert!(!flights.is_uncacheable(&key(0)));
    assert!(flights.is_uncacheable(&key(1)) && flights.is_uncacheable(&key(UNCACHEABLE_MAX)));
    assert!(flights.shard(&key(0)).lock().uncacheable.len() <= UNCACHEABLE_MAX);
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let flights = flights(1 << 20);
    let (lead, mut reader) = lead(&flights);
    assert!(reader.head().now_or_never().is_none());
    assert!(reader.chunk().now_or_never().is_none());
    lead.head(200);
    lead.push(chunk("x"));
    assert_eq!(reader.head().now_or_never(), Some(Ok(200)));
    assert_eq!(reader.chunk().now_or_never(), Some(Some(Ok(chunk("x")))));
}

/// What may happen to a flight, in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join,
    Leave(usize),
    Read(usize),
    Push,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Join),
        2 => (0usize..8).prop_map(Step::Leave),
        4 => (0usize..8).prop_map(Step::Read),
        4 => Just(Step::Push),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Whoever leaves when, each reader has seen a prefix of what was pushed, from its start and without a gap; the pump
    /// is told exactly when nobody is left; nothing stays behind.
    #[test]
    fn any_schedule_of_joining_reading_and_leaving_keeps_the_promises(steps in steps(), small_buffer: bool) {
        let flights = flights(if small_buffer { 500 } else { 1 << 20 });
        let (lead, own) = lead(&flights);
        let mut readers = vec![(own, Vec::new())];
        let mut pushed = Vec::new();
        for step in steps {
            match step {
                Step::Join => {
                    if let Joined::Follow(reader) = flights.join(KEY) {
                        readers.push((reader, Vec::new()));
                    }
                }
                Step::Leave(at) if at < readers.len() => drop(readers.swap_remove(at)),
                Step::Read(at) if at < readers.len() => {
                    let (reader, seen) = &mut readers[at];
                    match reader.chunk().now_or_never() {
                        Some(Some(Ok(bytes))) => seen.extend_from_slice(&bytes),
                        Some(other) => prop_assert_eq!(other, Some(Err(FlightEnd::Lagged))),
                        None => prop_assert_eq!(&*seen, &pushed),
                    }
                }
                Step::Leave(_) | Step::Read(_) => {}
                Step::Push => {
                    let byte = pushed.len() as u8;
                    pushed.push(byte);
                    lead.push(Bytes::copy_from_slice(&[byte]));
                }
            }
            prop_assert_eq!(lead.readers(), readers.len());
            prop_assert!(readers.iter().all(|(_, seen)| pushed.starts_with(seen)));
            if readers.is_empty() {
                prop_assert!(lead.abandoned().now_or_never().is_some());
                break;
            }
            prop_assert!(lead.abandoned().now_or_never().is_none());
        }
        lead.finish();
        drop(lead);
        prop_assert!(flights.is_empty());
        for (reader, mut seen) in readers {
            let Some((rest, end)) = read_all(reader).now_or_never() else { panic!("a reader waits for ever") };
            seen.extend(rest);
            prop_assert!(end == Some(FlightEnd::Lagged) || seen == pushed);
        }
    }
}

#[test]
fn many_runtimes_share_one_generation() {
    const RUNTIMES: usize = 4;
    let flights = flights(1 << 20);
    let generations = Arc::new(AtomicUsize::new(0));
    let start = Arc::new(std::sync::Barrier::new(RUNTIMES));
    let threads: Vec<_> = (0..RUNTIMES)
        .map(|_| {
            let (flights, generations, start) = (flights.clone(), generations.clone(), start.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                start.wait();
                runtime.block_on(one_client(&flights, &generations))
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), (0..200u8).collect::<Vec<_>>());
    }
    assert_eq!(generations.load(Ordering::Relaxed), 1);
    assert!(flights.is_empty());
}

/// Generates if it is the first, once all have joined; reads in any case.
async fn one_client(flights: &Arc<Flights<u16>>, generations: &AtomicUsize) -> Vec<u8> {
    let reader = match flights.join(KEY) {
        Joined::Follow(reader) => reader,
        Joined::Pass => panic!("passed"),
        Joined::Lead(lead, reader) => {
            generations.fetch_add(1, Ordering::Relaxed);
            while lead.readers() < 4 {
                tokio::task::yield_now().await;
            }
            for byte in 0..200u8 {
                lead.push(Bytes::copy_from_slice(&[byte]));
                tokio::task::yield_now().await;
            }
            lead.finish();
            reader
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(20), read_all(reader)).await.unwrap();
    assert_eq!(read.1, None);
    read.0
}

#[tokio::test]
async fn a_look_says_what_joining_would_come_to_and_joins_nothing() {
    let flights = flights(1 << 20);
    assert_eq!((flights.look(&KEY), flights.len()), (UnderWay::Nothing, 0));
    let (lead, reader) = lead(&flights);
    assert_eq!((flights.look(&KEY), flights.look(&KEY)), (UnderWay::Joinable(1), UnderWay::Joinable(1)));
    let follower = follow(&flights);
    assert_eq!(flights.look(&KEY), UnderWay::Joinable(2));
    drop((lead, reader, follower));
    assert_eq!(flights.look(&KEY), UnderWay::Nothing);
    flights.mark_uncacheable(KEY, Instant::now() + Duration::from_secs(1));
    assert_eq!(flights.look(&KEY), UnderWay::Apart);
}
