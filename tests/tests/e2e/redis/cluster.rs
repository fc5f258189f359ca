//! A cluster of three masters: sharing, slots on the move, masters that die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use refrain_tests::redis::{ClientCertificates, Flavour, RedisCluster, RedisOptions};
use refrain_tests::{Ask, Authority, Client, Person, Refrain, eventually};
use tokio::task::JoinSet;

use super::{CALM, ERRORS, Fleet, PARAPHRASE, QUESTION, detail, look, report, stored, written};

/// Questions, which are as many partitions for as many people, and so lie on every master.
const SPREAD: usize = 24;

async fn of(cluster: &RedisCluster) -> Fleet {
    // One of them is enough to find the others.
    Fleet::with(&format!("url = {:?}\ncluster = true\n{CALM}", cluster.urls()[0])).await
}

fn people() -> Vec<Person> {
    (0..SPREAD).map(|nth| Person::new(&format!("user-{nth}"), "acme")).collect()
}

/// No script or pipeline has touched two slots.
async fn check_no_cross_slot(cluster: &RedisCluster) {
    for node in cluster.nodes().iter().filter(|node| node.is_running()) {
        let errors = node.command(&["INFO", "errorstats"]).await.text();
        assert!(!errors.contains("CROSSSLOT"), "{errors}");
    }
}

async fn check_shares([a, b]: &[Refrain; 2], people: &[Person], text: &str) {
    for person in people {
        let ask = Ask::chat(text).by(person);
        let answer = stored(a, &ask).await.answer();
        let hit = b.send(&ask).await;
        assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), answer), "{person:?}");
    }
}

async fn check_cluster(flavour: Flavour, mode: &str) {
    let cluster = RedisCluster::start(flavour, 3).await;
    let (fleet, people) = (of(&cluster).await, people());
    let everybody: Vec<&Person> = people.iter().collect();
    let pair = fleet.pair_with(|config| config.people(&everybody).semantic("threshold = 0.85")).await;
    assert_eq!(report(&pair[0]).await["vectors"], mode);
    check_shares(&pair, &people, QUESTION).await;
    for node in cluster.nodes() {
        assert!(node.command(&["DBSIZE"]).await.integer() > 1, "each has some of it");
    }
    for person in &people[..6] {
        let similar = async || {
            let reply = look(&pair[1], &Ask::chat(PARAPHRASE).by(person)).await;
            reply.is_hit().then(|| reply.answer())
        };
        let own = look(&pair[1], &Ask::chat(QUESTION).by(person)).await.answer();
        assert_eq!(eventually("a similar hit in a cluster", similar).await, own);
    }
    for proxy in &pair {
        let metrics = proxy.metrics().await;
        assert!(metrics.sum(ERRORS, &[]) < 0.5, "{}", metrics.text());
    }
    check_no_cross_slot(&cluster).await;
}

#[tokio::test]
async fn redis_cluster_with_vector_sets_is_shared() {
    check_cluster(Flavour::VectorSets, "vector-sets").await;
}

#[tokio::test]
async fn redis_cluster_with_query_engines_is_shared_by_vector_sets() {
    check_cluster(Flavour::QueryEngine, "vector-sets").await;
}

#[tokio::test]
async fn redis_cluster_without_vectors_is_shared_and_rebuilt_from_each_master() {
    check_cluster(Flavour::Plain, "local").await;
}

#[tokio::test]
async fn redis_cluster_with_tls_and_a_password_is_shared() {
    let authority = Authority::new();
    let options =
        || RedisOptions::new(Flavour::Plain).tls(&authority, ClientCertificates::Ignored).password("secret");
    let cluster = RedisCluster::start_with(3, options).await;
    let lines = format!(
        "urls = {:?}\ncluster = true\npassword = {{ value = \"secret\" }}\n{CALM}\n[store.redis.tls]\nca_file = {:?}",
        cluster.urls(),
        cluster.nodes()[0].root_file()
    );
    let fleet = Fleet::with(&lines).await;
    let people = people();
    let everybody: Vec<&Person> = people.iter().collect();
    let pair = fleet.pair_with(|config| config.people(&everybody)).await;
    check_shares(&pair, &people[..12], "what now?").await;
    check_no_cross_slot(&cluster).await;
}

/// Somebody's questions, asked without an end, each answered right.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(proxies: &[Refrain], people: &[Person]) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for (nth, person) in people.iter().take(8).enumerate() {
            let client = Client::http(proxies[nth % proxies.len()].address());
            let (person, stop, done) = (person.clone(), stop.clone(), done.clone());
            tasks.spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let text = format!("question {} of {}", round % 40, nth);
                    let reply = client.send(&Ask::chat(&text).by(&person)).await;
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    assert!(reply.answer().ends_with(&format!(" to {text}")), "{}", reply.text());
                    done.fetch_add(1, Ordering::Relaxed);
                    round += 1;
                }
            });
        }
        Self { stop, done, tasks }
    }

    /// Waits until so many more were answered.
    async fn go_on(&self, count: usize) {
        let until = self.done.load(Ordering::Relaxed) + count;
        let reached = async || (self.done.load(Ordering::Relaxed) >= until).then_some(());
        eventually("more answers", reached).await;
    }

    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test]
async fn redis_cluster_slots_move_under_load() {
    let cluster = RedisCluster::start(Flavour::VectorSets, 3).await;
    let (fleet, people) = (of(&cluster).await, people());
    let everybody: Vec<&Person> = people.iter().collect();
    let pair = fleet.pair_with(|config| config.people(&everybody).semantic("threshold = 0.85")).await;
    let [a, b] = &pair;
    let own = Ask::chat(QUESTION).by(&people[0]);
    let answer = stored(a, &own).await.answer();
    let mut names = Vec::new();
    for node in cluster.nodes() {
        names.extend(super::entries(node).await);
    }
    assert_eq!(names.len(), 1, "{names:?}");
    let slot = cluster.slot_of(&names[0]).await;
    let (from, to) = (cluster.owner_of(slot).await, (cluster.owner_of(slot).await + 1) % 3);
    let load = Load::start(&pair, &people[1..]);
    load.go_on(100).await;

    let moving = cluster.move_slot(slot, to).await;
    assert_eq!(moving.from(), from);
    // Migrating and not yet moved, then moved and only asked for: ASK.
    for state in ["migrating", "asked for"] {
        let c = fleet.proxy_with(|config| config.people(&everybody).semantic("threshold = 0.85")).await;
        let hit = look(&c, &own).await;
        assert_eq!((detail(&hit), hit.answer()), ("exact_shared".to_owned(), answer.clone()), "{state}");
        let other = Ask::chat(&format!("What does {state} mean?")).by(&people[0]);
        let reply = c.send(&other).await;
        assert_eq!(reply.status, 200);
        written(&c).await;
        moving.move_keys().await;
        load.go_on(50).await;
    }
    moving.finish().await;
    load.go_on(100).await;
    load.end().await;
    let c = fleet.proxy_with(|config| config.people(&everybody).semantic("threshold = 0.85")).await;
    for proxy in [b, &c] {
        let hit = look(proxy, &own).await;
        assert_eq!((hit.is_hit(), hit.answer()), (true, answer.clone()));
    }
    stored(a, &Ask::chat("Something new?").by(&people[0])).await;
    check_no_cross_slot(&cluster).await;
}

#[tokio::test]
async fn redis_cluster_fails_over_under_load() {
    let mut cluster = RedisCluster::start_with_replicas(Flavour::VectorSets, 3).await;
    let people = people();
    let everybody: Vec<&Person> = people.iter().collect();
    let fleet = Fleet::with(&format!("urls = {:?}\ncluster = true\n{CALM}", cluster.urls())).await;
    let pair = fleet.pair_with(|config| config.people(&everybody)).await;
    check_shares(&pair, &people[..12], "what now?").await;
    let load = Load::start(&pair, &people);
    load.go_on(100).await;
    let replica = cluster.replica_of(1);
    cluster.node_mut(1).kill9();
    load.go_on(20).await;
    cluster.promoted(replica).await;
    load.go_on(100).await;
    load.end().await;
    for proxy in &pair {
        super::up(proxy).await;
    }
    // All slots are served again, without a restart of anything.
    check_shares(&pair, &people, "what then?").await;
    cluster.node_mut(1).start_again().await;
    cluster.served().await;
    check_shares(&pair, &people[..12], "and now?").await;
    check_no_cross_slot(&cluster).await;
}
