//! A text's vector.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Numbers in a vector.
pub const DIMENSIONS: usize = 384;

/// A unit vector of [`DIMENSIONS`] finite numbers. Cloning shares it.
#[derive(Clone, PartialEq)]
pub struct Embedding(Arc<[f32; DIMENSIONS]>);

impl Embedding {
    /// Scales `vector` to unit length. None unless it has [`DIMENSIONS`] finite numbers and a direction.
    pub fn normalised(vector: &[f32]) -> Option<Self> {
        let mut vector: [f32; DIMENSIONS] = vector.try_into().ok()?;
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if !(norm.is_finite() && norm > 1e-6) {
            return None;
        }
        vector.iter_mut().for_each(|x| *x /= norm);
        Some(Self(Arc::new(vector)))
    }

    /// Little-endian f32s, for records.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    /// What [`Self::to_bytes`] made. None for anything else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<4>() else { return None };
        if numbers.len() != DIMENSIONS {
            return None;
        }
        Self::normalised(&numbers.iter().map(|x| f32::from_le_bytes(*x)).collect::<Vec<_>>())
    }

    /// Cosine similarity, -1 to 1.
    pub fn cosine(&self, other: &Self) -> f32 {
        self.0.iter().zip(other.0.iter()).map(|(a, b)| a * b).sum::<f32>().clamp(-1.0, 1.0)
    }
}

/// A vector tells what its text was about, so it stays out of logs.
impl fmt::Debug for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Embedding(..)")
    }
}

impl Deref for Embedding {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedding_survives_its_bytes() {
        let numbers: Vec<f32> = (0..DIMENSIONS).map(|i| i as f32 - 100.0).collect();
        let embedding = Embedding::normalised(&numbers).unwrap();
        let back = Embedding::from_bytes(&embedding.to_bytes()).unwrap();
        assert!((embedding.cosine(&back) - 1.0).abs() < 1e-6);
        assert!((embedding.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        let mut infinite = vec![1.0; DIMENSIONS];
        infinite[3] = f32::INFINITY;
        for numbers in [vec![], vec![1.0; 3], vec![0.0; DIMENSIONS], infinite] {
            assert_eq!(Embedding::normalised(&numbers), None);
        }
        assert_eq!(Embedding::from_bytes(&[0; 7]), None);
    }
}
