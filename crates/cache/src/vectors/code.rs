//! A vector's two stored forms, and their distances.
//!
//! The loops are written for the compiler's vectoriser and run through `pulp`, which picks the widest instructions that
//! this CPU has: a baseline x86-64 build has no `popcnt`.

use crate::embedder::DIMENSIONS;

/// 64-bit words of sign bits.
const WORDS: usize = DIMENSIONS / 64;

/// Vectors whose Hamming distances are computed before any of them is looked at.
pub(super) const BLOCK: usize = 128;

/// One bit a dimension: whether it is negative.
pub(super) type Signs = [u64; WORDS];

/// A stored vector.
pub(super) struct Code {
    pub(super) signs: Signs,
    pub(super) bytes: [i8; DIMENSIONS],
    /// `bytes * scale` is the vector.
    pub(super) scale: f32,
}

/// A question's vector, ready to be compared.
pub(super) struct Query {
    signs: Signs,
    vector: [f32; DIMENSIONS],
}

impl Query {
    /// None unless it is a unit vector of the right length.
    pub(super) fn new(vector: &[f32]) -> Option<Self> {
        let vector = unit(vector)?;
        Some(Self { signs: signs(vector), vector: *vector })
    }

    /// Hamming distances of up to [`BLOCK`] vectors.
    pub(super) fn distances(&self, block: &[Signs], out: &mut [u16; BLOCK]) {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for (distance, signs) in out.iter_mut().zip(block) {
                    *distance = hamming(&self.signs, signs);
                }
            },
        );
    }

    /// Cosine similarity to a stored vector.
    pub(super) fn similarity(&self, bytes: &[i8; DIMENSIONS], scale: f32) -> f32 {
        let dot = pulp::Arch::new().dispatch(
            #[inline(always)]
            || dot(&self.vector, bytes),
        );
        (dot * scale).clamp(-1.0, 1.0)
    }
}

/// None unless it is a unit vector of the right length.
pub(super) fn encode(vector: &[f32]) -> Option<Code> {
    let vector = unit(vector)?;
    let largest = vector.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let scale = largest / f32::from(i8::MAX);
    let mut bytes = [0_i8; DIMENSIONS];
    for (byte, x) in bytes.iter_mut().zip(vector) {
        *byte = (x / scale).round() as i8;
    }
    Some(Code { signs: signs(vector), bytes, scale })
}

/// Unit length up to rounding; NaN and infinities fail the comparison.
fn unit(vector: &[f32]) -> Option<&[f32; DIMENSIONS]> {
    let vector: &[f32; DIMENSIONS] = vector.try_into().ok()?;
    let square: f32 = vector.iter().map(|x| x * x).sum();
    ((square - 1.0).abs() < 0.02).then_some(vector)
}

fn signs(vector: &[f32; DIMENSIONS]) -> Signs {
    let mut signs = [0_u64; WORDS];
    for (word, chunk) in signs.iter_mut().zip(vector.chunks_exact(64)) {
        *word =
            chunk.iter().enumerate().fold(0, |bits, (i, x)| bits | (u64::from(x.is_sign_negative()) << i));
    }
    signs
}

#[inline(always)]
fn hamming(a: &Signs, b: &Signs) -> u16 {
    let mut distance = 0;
    for word in 0..WORDS {
        distance += (a[word] ^ b[word]).count_ones();
    }
    distance as u16
}

/// Sixteen running sums, since floating-point addition may not be reordered by the compiler.
#[inline(always)]
fn dot(a: &[f32; DIMENSIONS], b: &[i8; DIMENSIONS]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0_f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * f32::from(b[lane]);
        }
    }
    sums.iter().sum()
}
