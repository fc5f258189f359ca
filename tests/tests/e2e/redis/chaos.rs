//! Many people ask much of two proxies while proxies and Redis are killed at random points, and all is purged now and then:
//! every answer is checked against what was generated for this very person and question, byte by byte, and since the purge.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use refrain_tests::fake::{Answer, FakeUpstream, Recorded, openai};
use refrain_tests::redis::{Flavour, RedisOptions, RedisServer};
use refrain_tests::{Ask, Client, Config, Connection, Person, Random, Refrain, Reply, within_time};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Fleet;

/// What is random is so in the same way each time.
const SEED: u64 = 0x5eed_2026;
/// Answers that are checked.
const ANSWERS: usize = 100_000;
/// The same where each question is embedded.
const SIMILAR_ANSWERS: usize = 3_000;
/// Faults while they come.
const FAULTS: usize = 32;
const SIMILAR_FAULTS: usize = 8;
const CLIENTS: usize = 16;
const QUESTIONS: usize = 40;
/// How long a proxy may serve what is near without word from Redis, as its config says.
const LEASE: Duration = Duration::from_secs(1);
/// For all of it, on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(280);
/// For a process that was killed to be there again.
const RESTART_DEADLINE: Duration = Duration::from_secs(60);

/// Questions that mean the same, and nothing of what the others mean.
const TOPICS: [[&str; 2]; 4] = [
    ["How do I reset my password?", "How can I reset my password?"],
    ["How do I bake bread at home?", "How can I bake bread at home?"],
    ["Where is the nearest train station?", "Where's the nearest train station?"],
    ["What is the capital of France?", "What's the capital of France?"],
];

/// Whose and about what an answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    who: String,
    topic: String,
}

/// What was generated so far, by number.
#[derive(Clone, Default)]
struct Generations(Arc<Mutex<Vec<Key>>>);

impl Generations {
    /// Generates: the upstream is told by a field that is no part of a key whom it speaks to.
    fn answer(&self, request: &Recorded, topic_of: impl Fn(&str) -> String) -> Answer {
        let body = request.json();
        let question = body["messages"][0]["content"].as_str().unwrap();
        let key = Key { who: body["user"].as_str().unwrap().to_owned(), topic: topic_of(question) };
        let number = {
            let mut made = self.0.lock();
            made.push(key.clone());
            made.len() - 1
        };
        shape(&body, number, &text(&key, number))
    }

    fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether this is, whole and unchanged, an answer that was generated for the key, and not before `since`; what is wrong
    /// otherwise.
    fn check(&self, key: &Key, answer: &str, since: usize) -> Result<(), String> {
        let number = answer.split_once(' ').and_then(|(number, _)| number.parse::<usize>().ok());
        let made = number.and_then(|number| Some((number, self.0.lock().get(number)?.clone())));
        match made {
            Some((_, owner)) if owner != *key => Err(format!("{key:?} was served what is {owner:?}'s")),
            Some((number, _)) if number < since => Err(format!("{key:?} was served what had been purged")),
            Some((number, _)) if text(key, number) == answer => Ok(()),
            _ => Err(format!("{key:?} was served what nobody generated: {answer:?}")),
        }
    }
}

/// The text of a generation: some compress well and some don't, some are long.
fn text(key: &Key, number: usize) -> String {
    use std::fmt::Write;
    let mut random = Random(blake3::hash(format!("{key:?} {number}").as_bytes()).as_bytes()[0].into());
    let mut text = format!("{number} to {} about {}:", key.who, key.topic);
    let words = [3, 20, 150][random.below(3)];
    for _ in 0..words {
        let word = if number.is_multiple_of(2) { random.next() } else { 7 };
        write!(text, " {word:x}").unwrap();
    }
    text
}

fn shape(body: &Value, number: usize, text: &str) -> Answer {
    if body["stream"] != true {
        let message = json!({"role": "assistant", "content": text});
        return Answer::json(200, &openai::chat_whole(number as u64, &message, "stop", 3));
    }
    let (first, rest) = text.split_at(text.len() / 2);
    openai::chat_stream(&[first, rest], "stop")
}

/// What is asked: by whom, what, and what it is about.
struct Questions {
    people: Vec<Person>,
    texts: Vec<(String, String)>,
}

impl Questions {
    fn new(texts: Vec<(String, String)>) -> Self {
        // The same names in two organisations.
        let people = ["acme", "umbrella"]
            .iter()
            .flat_map(|tenant| ["ann", "bob", "eve"].iter().map(move |name| Person::new(name, tenant)));
        Self { people: people.collect(), texts }
    }

    fn random(&self, random: &mut Random) -> (Key, Ask) {
        let person = &self.people[random.below(self.people.len())];
        let (text, topic) = &self.texts[random.below(self.texts.len())];
        let ask = Ask::chat(text).by(person).field("user", person.token().into());
        let ask = if random.below(2) == 0 { ask.streamed() } else { ask };
        let ask = match random.below(100) {
            0 => ask.cache_control("no-cache"),
            1 => ask.cache_control("no-store"),
            _ => ask,
        };
        (Key { who: person.token(), topic: topic.clone() }, ask)
    }
}

/// How answers came about.
#[derive(Default)]
struct Tally {
    answers: AtomicUsize,
    near: AtomicUsize,
    shared: AtomicUsize,
    semantic: AtomicUsize,
    generated: AtomicUsize,
    /// The proxy died before the answer's end, or before it listened again.
    broken: AtomicUsize,
}

impl Tally {
    fn count(&self, status: &str) {
        let kind = match status.rsplit_once("detail=") {
            _ if status.starts_with("refrain; fwd=") => &self.generated,
            Some((_, "exact")) => &self.near,
            Some((_, "exact_shared")) => &self.shared,
            Some((_, "semantic" | "semantic_shared")) => &self.semantic,
            _ => panic!("unexpected: {status}"),
        };
        kind.fetch_add(1, Ordering::Relaxed);
    }
}

/// A purge of everything: from then on nothing is served that was generated before that number.
#[derive(Clone, Copy)]
struct Purged {
    from: Instant,
    number: usize,
}

/// One run.
struct Chaos {
    questions: Questions,
    generations: Generations,
    proxies: [SocketAddr; 2],
    tally: Tally,
    wrong: Mutex<Vec<String>>,
    purges: Mutex<Vec<Purged>>,
    answers_max: usize,
    progress: watch::Sender<usize>,
}

impl Chaos {
    /// Asks until there are enough answers.
    async fn ask(self: Arc<Self>, nth: u64) {
        let mut random = Random(SEED ^ nth);
        let mut connections: [Option<Connection>; 2] = [None, None];
        while self.tally.answers.load(Ordering::Relaxed) < self.answers_max {
            let (key, ask) = self.questions.random(&mut random);
            let (proxy, asked) = (random.below(2), Instant::now());
            let Some(reply) = self.exchange(&mut connections[proxy], proxy, &ask).await else {
                self.tally.broken.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                continue;
            };
            self.judge(&key, asked, &reply);
        }
    }

    /// None: the proxy is being killed.
    async fn exchange(&self, place: &mut Option<Connection>, proxy: usize, ask: &Ask) -> Option<Reply> {
        if place.is_none() {
            *place = Client::http(self.proxies[proxy]).connect().await.ok();
        }
        let reply = place.as_mut()?.send(ask).await;
        if reply.is_err() {
            *place = None;
        }
        reply.ok()
    }

    fn judge(&self, key: &Key, asked: Instant, reply: &Reply) {
        let is_whole = reply.header("content-type").starts_with("application/json")
            || reply.text().ends_with("data: [DONE]\n\n");
        let judged = match reply.status {
            200 if is_whole => self.generations.check(key, &reply.answer(), self.purged(asked)),
            _ => Err(format!("{key:?}: {} {}", reply.status, reply.text())),
        };
        if let Err(what) = judged {
            self.wrong.lock().push(what);
        }
        self.tally.count(&reply.cache_status());
        self.progress.send_replace(self.tally.answers.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// What was generated before this number must not be served to who asked then.
    fn purged(&self, asked: Instant) -> usize {
        let purges = self.purges.lock();
        purges.iter().filter(|purge| purge.from <= asked).map(|purge| purge.number).max().unwrap_or(0)
    }

    /// Purges everything at a proxy, if Redis lets it.
    async fn purge(&self, proxy: &Refrain) {
        let number = self.generations.count();
        let reply = proxy.admin(&Ask::post("/purge", json!({"everything": true}))).await;
        if reply.status == 200 {
            self.purges.lock().push(Purged { from: Instant::now() + LEASE, number });
        }
    }

    /// Kills, restarts and purges, each at its time.
    async fn break_things(
        self: Arc<Self>,
        mut proxies: [Option<Refrain>; 2],
        mut redis: RedisServer,
        faults: usize,
    ) {
        let mut random = Random(SEED);
        let mut progress = self.progress.subscribe();
        for nth in 0..faults {
            let at = self.answers_max * nth / faults + random.below(self.answers_max / faults / 2);
            progress.wait_for(|answers| *answers >= at).await.unwrap();
            match random.below(8) {
                proxy @ 0..=1 => {
                    let killed = proxies[proxy].take().unwrap().kill9_and_restart();
                    proxies[proxy] = Some(within_time(RESTART_DEADLINE, "restart of a proxy", killed).await);
                }
                2 | 3 => redis.restart().await,
                4 => redis.restart_empty().await,
                proxy @ 5..=6 => self.purge(proxies[proxy - 5].as_ref().unwrap()).await,
                _ => {
                    redis.sigstop();
                    let since = *progress.borrow();
                    let few = progress.wait_for(|answers| *answers >= since + self.answers_max / 1000);
                    within_time(DEADLINE, "answers without Redis", few).await.unwrap();
                    redis.sigcont();
                }
            }
        }
        progress.wait_for(|answers| *answers >= self.answers_max).await.unwrap();
        for proxy in proxies.iter().flatten() {
            // All of it is over, and Redis is in use again.
            super::up(proxy).await;
        }
    }
}

async fn run(
    (answers_max, faults): (usize, usize),
    texts: Vec<(String, String)>,
    change: impl Fn(Config) -> Config,
) -> Arc<Chaos> {
    let redis = RedisServer::start_with(RedisOptions::new(Flavour::VectorSets).append_only()).await;
    let fleet = Fleet::with(&format!("url = {:?}\ntimeout = \"250ms\"\nlease = \"1s\"", redis.url())).await;
    let (questions, generations) = (Questions::new(texts), Generations::default());
    answer_always(&fleet.fake, &generations, &questions);
    let everybody: Vec<&Person> = questions.people.iter().collect();
    // Short-lived, so that Redis and the upstream have something to do.
    let settings = |config: Config| change(config.people(&everybody).quiet().cache("ttl = \"4s\""));
    let pair = fleet.pair_with(settings).await;
    let proxies = [pair[0].address(), pair[1].address()];
    let chaos = Arc::new(Chaos {
        questions,
        generations,
        proxies,
        tally: Tally::default(),
        wrong: Mutex::default(),
        purges: Mutex::default(),
        answers_max,
        progress: watch::channel(0).0,
    });
    let mut tasks = JoinSet::new();
    for nth in 0..CLIENTS as u64 {
        tasks.spawn(chaos.clone().ask(nth));
    }
    let asking = async {
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    };
    let breaking = chaos.clone().break_things(pair.map(Some), redis, faults);
    within_time(DEADLINE, "the end of chaos", async { tokio::join!(asking, breaking) }).await;
    chaos
}

fn answer_always(fake: &FakeUpstream, generations: &Generations, questions: &Questions) {
    let (generations, texts) = (generations.clone(), questions.texts.clone());
    let topic_of = move |question: &str| {
        texts.iter().find(|(text, _)| text == question).expect("a question of ours").1.clone()
    };
    fake.always(move |request| generations.answer(request, &topic_of));
}

fn check(chaos: &Chaos) {
    let wrong = chaos.wrong.lock();
    assert!(wrong.is_empty(), "{} wrong answers, such as {}", wrong.len(), wrong[0]);
    assert!(chaos.tally.answers.load(Ordering::Relaxed) >= chaos.answers_max);
}

#[tokio::test]
async fn nobody_is_ever_served_a_wrong_answer_while_everything_dies() {
    let texts = (0..QUESTIONS).map(|nth| (format!("Question {nth}?"), format!("topic {nth}"))).collect();
    let chaos = run((ANSWERS, FAULTS), texts, |config| config).await;
    check(&chaos);
    let Tally { near, shared, generated, broken, .. } = &chaos.tally;
    let counts = [near, shared, generated, broken].map(|count| count.load(Ordering::Relaxed));
    println!("near, shared, generated, broken off: {counts:?}, purges: {}", chaos.purges.lock().len());
    assert!(chaos.purges.lock().len() > 1);
    // Else it would prove nothing.
    assert!(counts[0] > ANSWERS / 2 && counts[1] > 100 && counts[2] > 100 && counts[3] > 0, "{counts:?}");
}

#[tokio::test]
async fn nobody_is_ever_served_a_wrong_similar_answer_while_everything_dies() {
    let texts = TOPICS
        .iter()
        .enumerate()
        .flat_map(|(nth, texts)| texts.iter().map(move |text| ((*text).to_owned(), format!("topic {nth}"))));
    let semantic = |config: Config| config.semantic("threshold = 0.85");
    let chaos = run((SIMILAR_ANSWERS, SIMILAR_FAULTS), texts.collect(), semantic).await;
    check(&chaos);
    let similar = chaos.tally.semantic.load(Ordering::Relaxed);
    assert!(similar > SIMILAR_ANSWERS / 20, "{similar} similar answers");
}
