use super::*;
use crate::bench::cache_status::CacheStatus;
use crate::bench::outcome::Answered;
use crate::bench::tally::{Tally, Times};
use crate::cli::{Cli, Command};
use clap::Parser as _;

/// Answers at once, but for a time in which it answers nobody.
#[derive(Clone)]
struct Stalling {
    from: Instant,
    until: Instant,
    asked: Arc<Mutex<Vec<bytes::Bytes>>>,
}

impl Stalling {
    fn new(from: Duration, until: Duration) -> Self {
        let now = Instant::now();
        Self { from: now + from, until: now + until, asked: Arc::default() }
    }
}

impl Asker for Stalling {
    async fn ask(&self, ask: Ask) -> Outcome {
        let sent = Instant::now();
        self.asked.lock().push(ask.body);
        if sent >= self.from {
            sleep_until(self.until).await;
        }
        let result = Ok(Answered::default());
        Outcome { sent, first_text: None, ended: Instant::now(), cache: CacheStatus::default(), result }
    }
}

/// Takes as long for every answer.
#[derive(Clone)]
struct Slow(Duration);

impl Asker for Slow {
    async fn ask(&self, _ask: Ask) -> Outcome {
        let sent = Instant::now();
        sleep(self.0).await;
        let result = Ok(Answered::default());
        Outcome { sent, first_text: None, ended: Instant::now(), cache: CacheStatus::default(), result }
    }
}

fn workload() -> Arc<Workload> {
    let line = "refrain bench --url http://127.0.0.1:1 --model m --turns 2";
    let Some(Command::Bench(arguments)) = Cli::parse_from(line.split(' ')).command else {
        panic!("not a bench")
    };
    Arc::new(Workload::read(&arguments.asking, &arguments.workload).unwrap())
}

fn extent(seconds: u64, in_flight: usize) -> Extent {
    let now = Instant::now();
    let until = Some(now + Duration::from_secs(seconds));
    Extent { from: now, until, requests: u64::MAX, in_flight, grace: Duration::from_secs(60) }
}

async fn run<A: Asker>(asker: A, how: Loop, extent: Extent) -> (Vec<Done>, Undone) {
    let (sender, mut outcomes) = mpsc::channel(100_000);
    let undone = drive(asker, workload(), how, extent, sender, CancellationToken::new()).await;
    let mut all = Vec::new();
    while let Some(done) = outcomes.recv().await {
        all.push(done);
    }
    (all, undone)
}

fn per_second(rate: u64) -> Loop {
    Loop::Open(Schedule::Constant(Duration::from_millis(1000 / rate)), 4)
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_stall_shows_in_everybody_who_would_have_asked_meanwhile() {
    // Ten a second for ten seconds; from the fourth on nothing is answered for five seconds.
    let (all, undone) = run(Stalling::new(4 * SECOND, 9 * SECOND), per_second(10), extent(10, 1000)).await;
    assert_eq!((all.len(), undone), (99, Undone { unsent: 0, unfinished: 0 }));
    let waited = all.iter().filter(|done| done.outcome.ended - done.due > Duration::from_millis(500));
    assert_eq!(waited.count(), 46 - 1, "due from 4.0 s on, and more than half a second before 9 s");
}

#[tokio::test(start_paused = true)]
async fn requests_that_find_no_room_are_late_and_their_latency_counts_from_when_they_were_due() {
    let (all, undone) = run(Stalling::new(4 * SECOND, 9 * SECOND), per_second(10), extent(20, 1)).await;
    assert_eq!((all.len(), undone), (199, Undone { unsent: 0, unfinished: 0 }));
    let late: Vec<_> = all.iter().filter(|done| done.outcome.sent > done.due + SECOND).collect();
    assert_eq!(
        late.len(),
        40 - 1,
        "one held the only place, and those due from 4.1 s to 7.9 s waited over a second"
    );
    assert!(late.iter().all(|done| done.outcome.ended - done.due > SECOND));
    assert!(
        late.iter().all(|done| done.outcome.ended - done.outcome.sent < SECOND),
        "the server took no time"
    );

    let mut tally = Tally::new(all[0].due, None);
    all.iter().for_each(|done| tally.add(done));
    // A fifth of the requests waited more than a second, and the percentiles say so; from sending, hardly any did.
    let seconds = |times: &Times, share: f64| times.0.value_at_quantile(share) / 1_000_000;
    assert_eq!((seconds(&tally.all.e2e, 0.82), seconds(&tally.from_sending.e2e, 0.99)), (1, 0));
    assert_eq!((seconds(&tally.all.e2e, 0.99), seconds(&tally.late, 0.99)), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn what_was_due_and_never_sent_is_counted() {
    let stall = Stalling::new(4 * SECOND, 100 * SECOND);
    let (all, undone) = run(stall, per_second(10), extent(10, 2)).await;
    // Due at 0.1 s ... 9.9 s; those at 4.0 s and 4.1 s hold both places until the end and its grace.
    assert_eq!(undone, Undone { unsent: 58, unfinished: 2 });
    assert_eq!(all.len(), 39);
    let mut tally = Tally::new(all[0].due, None);
    all.iter().for_each(|done| tally.add(done));
    tally.add_undone(&undone);
    assert_eq!(tally.due(), 99);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_in_the_warm_up_is_not_measured() {
    let asker = Stalling::new(100 * SECOND, 100 * SECOND);
    let extent = Extent { from: Instant::now() + 2 * SECOND, ..extent(10, 1000) };
    let mut tally = Tally::new(extent.from, None);
    let (all, _) = run(asker, per_second(10), extent).await;
    all.iter().for_each(|done| tally.add(done));
    assert_eq!((tally.warm_up, tally.answered), (19, 80));
}

#[tokio::test(start_paused = true)]
async fn users_of_a_closed_loop_wait_for_their_answers() {
    let (all, undone) = run(
        Stalling::new(Duration::ZERO, 3 * SECOND),
        Loop::Closed(5),
        Extent { requests: 20, ..extent(60, 1000) },
    )
    .await;
    assert_eq!((all.len(), undone), (20, Undone::default()));
    let first: Vec<_> = all.iter().filter(|done| done.outcome.ended - done.due >= 3 * SECOND).collect();
    assert_eq!(first.len(), 5, "each of them waited once");
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_asks_the_same_whoever_is_quicker() {
    let asked = async |users: usize, stall: Duration| {
        let asker = Stalling::new(Duration::ZERO, stall);
        let extent = Extent { requests: 33, ..extent(600, 1000) };
        run(asker.clone(), Loop::Closed(users), extent).await;
        let mut bodies = asker.asked.lock().clone();
        bodies.sort();
        bodies
    };
    let alone = asked(1, Duration::ZERO).await;
    assert_eq!(alone.len(), 33);
    assert_eq!(alone, asked(7, 3 * SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_everything_at_once() {
    let stop = CancellationToken::new();
    let (sender, mut outcomes) = mpsc::channel(1000);
    let asker = Stalling::new(Duration::ZERO, 1000 * SECOND);
    let driving = drive(asker, workload(), per_second(10), extent(100, 10), sender, stop.clone());
    let stopping = async {
        sleep(5 * SECOND).await;
        stop.cancel();
    };
    let began = Instant::now();
    let (undone, ()) = tokio::join!(driving, stopping);
    assert_eq!(undone, Undone { unsent: 0, unfinished: 10 });
    assert!(began.elapsed() < 6 * SECOND && outcomes.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_grace_of_a_closed_loop_begins_when_all_is_sent() {
    let extent = Extent { until: None, requests: 40, grace: 30 * SECOND, ..extent(1, 1000) };
    let (all, undone) = run(Slow(20 * SECOND), Loop::Closed(2), extent.clone()).await;
    assert_eq!((all.len(), undone), (40, Undone::default()), "two users take 400 s");
    let (all, undone) = run(Slow(1000 * SECOND), Loop::Closed(40), extent).await;
    assert_eq!(
        (all.len(), undone.unfinished),
        (20, 20),
        "the second turns of 20 conversations are sent late"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_warm_up_left_unfinished_is_not_measured() {
    let extent = Extent { from: Instant::now() + 2 * SECOND, ..extent(10, 1000) };
    let (_, undone) = run(Slow(1000 * SECOND), per_second(10), extent).await;
    assert_eq!(undone, Undone { unsent: 0, unfinished: 80 });
}
