use std::collections::HashMap;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const P: [u8; 32] = [7; 32];

fn id(n: u64) -> [u8; 32] {
    *blake3::hash(&n.to_le_bytes()).as_bytes()
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    vector
}

fn random(rng: &mut StdRng) -> Vec<f32> {
    unit((0..DIMENSIONS).map(|_| rng.random_range(-1.0..1.0)).collect())
}

fn near(center: &[f32], spread: f32, rng: &mut StdRng) -> Vec<f32> {
    let noise = random(rng);
    unit(center.iter().zip(&noise).map(|(c, n)| c + spread * n).collect())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Clusters as texts on one topic make them.
fn clustered(count: usize, clusters: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let centers: Vec<_> = (0..clusters).map(|_| random(&mut rng)).collect();
    (0..count).map(|i| near(&centers[i % clusters], 0.9, &mut rng)).collect()
}

fn filled(vectors: &[Vec<f32>]) -> VectorIndex {
    let index = VectorIndex::new(usize::MAX);
    for (n, vector) in vectors.iter().enumerate() {
        index.insert(P, id(n as u64), vector).unwrap();
    }
    index
}

#[test]
fn nearest_agrees_with_a_full_scan_on_clustered_vectors() {
    let vectors = clustered(4000, 100, 1);
    let index = filled(&vectors);
    let mut rng = StdRng::seed_from_u64(2);
    let mut agreed = 0;
    for n in 0..200 {
        let query = near(&vectors[n * 17], 0.6, &mut rng);
        let best = (0..vectors.len())
            .max_by(|a, b| cosine(&vectors[*a], &query).total_cmp(&cosine(&vectors[*b], &query)))
            .unwrap();
        let found = index.nearest(&P, &query, 8);
        assert_eq!(found.len(), 8);
        assert!(found.is_sorted_by(|a, b| a.similarity >= b.similarity));
        agreed += usize::from(found[0].id == id(best as u64));
    }
    assert!(agreed >= 198, "recall@1 is {agreed}/200");
}

#[test]
fn similarity_is_within_five_thousandths_of_the_true_cosine() {
    for count in [100, 600] {
        let vectors = clustered(count, 10, 3);
        let index = filled(&vectors);
        let by_id: HashMap<_, _> = vectors.iter().enumerate().map(|(n, v)| (id(n as u64), v)).collect();
        for query in vectors.iter().take(50) {
            for found in index.nearest(&P, query, 64) {
                let error = (found.similarity - cosine(by_id[&found.id], query)).abs();
                assert!(error < 0.005, "{error}");
            }
        }
    }
}

#[test]
fn a_partition_never_answers_for_another() {
    let index = VectorIndex::new(usize::MAX);
    let vector = clustered(1, 1, 4).remove(0);
    index.insert([1; 32], id(1), &vector).unwrap();
    // Same shard, other partition.
    let mut other = [1; 32];
    other[31] = 2;
    assert!(index.nearest(&other, &vector, 8).is_empty());
    assert_eq!(index.nearest(&[1; 32], &vector, 8)[0].id, id(1));
}

#[test]
fn an_emptied_index_takes_no_bytes() {
    let vectors = clustered(600, 5, 5);
    let index = filled(&vectors);
    assert_eq!(index.len(), 600);
    assert!(index.bytes() >= 600 * 468);
    assert!(index.bytes() < 2 * 600 * 540);
    for n in 0..600 {
        assert!(index.remove(&P, &id(n)));
    }
    assert_eq!((index.len(), index.bytes()), (0, 0));
}

#[test]
fn a_full_index_refuses_and_keeps_its_bound() {
    let bytes_max = 20_000;
    let index = VectorIndex::new(bytes_max);
    let vectors = clustered(100, 5, 6);
    let taken =
        vectors.iter().enumerate().take_while(|(n, v)| index.insert(P, id(*n as u64), v).is_ok()).count();
    assert!((20..100).contains(&taken), "{taken}");
    assert!(index.bytes() <= bytes_max);
    assert_eq!(index.insert(P, id(999), &vectors[0]), Err(VectorError::Full));
}

#[test]
fn malformed_vectors_are_refused() {
    let index = VectorIndex::new(usize::MAX);
    let mut nan = vec![0.0; DIMENSIONS];
    nan[0] = f32::NAN;
    for vector in [vec![], vec![1.0], vec![0.0; DIMENSIONS], vec![1.0; DIMENSIONS], nan] {
        assert_eq!(index.insert(P, id(1), &vector), Err(VectorError::Malformed));
        assert!(index.nearest(&P, &vector, 1).is_empty());
    }
    assert!(index.is_empty());
}

#[test]
fn more_neighbours_than_the_limit_are_cut_to_it() {
    let vectors = clustered(300, 3, 8);
    let index = filled(&vectors);
    assert_eq!(index.nearest(&P, &vectors[0], 1000).len(), NEIGHBOURS_MAX);
    assert!(index.nearest(&P, &vectors[0], 0).is_empty());
}

#[test]
fn removing_a_partition_counts_and_forgets_it() {
    let vectors = clustered(300, 3, 9);
    let index = filled(&vectors);
    assert_eq!(index.remove_partition(&P), 300);
    assert_eq!((index.len(), index.bytes()), (0, 0));
    assert_eq!(index.remove_partition(&P), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u64, usize),
    Remove(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..400_u64, 0..64_usize).prop_map(|(n, v)| Step::Insert(n, v)),
        1 => (0..400_u64).prop_map(Step::Remove),
    ];
    prop::collection::vec(step, 1..900)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_sequence_of_insertions_and_removals_equals_a_map(steps in steps()) {
        let vectors = clustered(64, 8, 10);
        let index = VectorIndex::new(usize::MAX);
        let mut model = HashMap::new();
        for step in steps {
            match step {
                Step::Insert(n, v) => {
                    index.insert(P, id(n), &vectors[v]).unwrap();
                    model.insert(id(n), v);
                }
                Step::Remove(n) => prop_assert_eq!(index.remove(&P, &id(n)), model.remove(&id(n)).is_some()),
            }
            prop_assert_eq!(index.len(), model.len());
        }
        for (v, vector) in vectors.iter().enumerate() {
            let held = model.values().filter(|held| **held == v).count();
            let found = index.nearest(&P, vector, 1);
            prop_assert_eq!(held > 0, found.first().is_some_and(|n| n.similarity > 0.999));
            if let Some(best) = found.first() {
                prop_assert!(held == 0 || model[&best.id] == v);
            }
        }
    }
}
