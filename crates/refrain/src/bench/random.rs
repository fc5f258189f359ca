//! Random numbers and words that depend on a seed and on what they are for, not on the order in which they are drawn.

use blake3::{Hasher, OutputReader};

/// One word a byte. Common and short: most tokenizers make one token of each.
const WORDS: &str = "\
    the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not \
    what all were we when your can said there use an each which she do how their if will up other about out many then \
    them these so some her would make like him into time has look two more write go see number no way could people my \
    than first water been call who oil its now find long down day did get come made may part over new sound take only \
    little work know place year live me back give most very after thing our just name good sentence man think say great \
    where help through much before line right too mean old any same tell boy follow came want show also around form \
    three small set put end does another well large must big even such because turn here why ask went men read need \
    land different home us move try kind hand picture again change off play spell air away animal house point page \
    letter mother answer found study still learn should world high every near add food between own below country plant \
    last school father keep tree never start city earth eye light thought head under story saw left don few while \
    along might close something seem next hard open example begin life always those both paper";

/// Draws from an endless stream that its seed, purpose and number name.
pub(crate) struct Random(OutputReader);

impl Random {
    /// The stream of `purpose` and `number`.
    pub(crate) fn new(seed: u64, purpose: &str, number: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes()).update(purpose.as_bytes());
        Self(hasher.finalize_xof())
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// From 0 up to, but not, `bound`; 0 for a bound of 0. Its bias is below 2^-32 for bounds below 2^32.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.number().checked_rem(bound).unwrap_or_default()
    }

    /// Above 0, up to 1.
    pub(crate) fn unit(&mut self) -> f64 {
        let bits = u32::try_from(self.number() >> 32).unwrap_or_default();
        (f64::from(bits) + 1.0) / (f64::from(u32::MAX) + 1.0)
    }

    /// A share of the draws.
    pub(crate) fn happens(&mut self, share: f64) -> bool {
        self.unit() <= share
    }
}

/// Writes random words.
#[derive(Debug)]
pub(crate) struct Words(Vec<&'static str>);

impl Default for Words {
    fn default() -> Self {
        Self(WORDS.split_whitespace().collect())
    }
}

impl Words {
    /// So many words with blanks between them.
    pub(crate) fn text(&self, random: &mut Random, count: u32) -> String {
        let mut choice = vec![0; usize::try_from(count).unwrap_or_default()];
        random.0.fill(&mut choice);
        let words: Vec<&str> = choice.iter().map(|byte| self.0[usize::from(*byte) % self.0.len()]).collect();
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_purpose_and_number_alone() {
        let draw = |seed, purpose, number| Random::new(seed, purpose, number).number();
        assert_eq!(draw(1, "a", 1), draw(1, "a", 1));
        assert_ne!(draw(1, "a", 1), draw(2, "a", 1));
        assert_ne!(draw(1, "a", 1), draw(1, "b", 1));
        assert_ne!(draw(1, "a", 1), draw(1, "a", 2));
    }

    #[test]
    fn words_are_distinct_and_counted() {
        let words = Words::default();
        let distinct: std::collections::HashSet<_> = words.0.iter().collect();
        assert_eq!(distinct.len(), words.0.len());
        assert!((200..=256).contains(&words.0.len()), "{}", words.0.len());
        assert_eq!(words.text(&mut Random::new(1, "t", 0), 512).split(' ').count(), 512);
    }

    #[test]
    fn shares_come_out_as_asked() {
        let mut random = Random::new(1, "share", 0);
        let happened = (0..10_000).filter(|_| random.happens(0.3)).count();
        assert!((2800..3200).contains(&happened), "{happened}");
        assert!(!random.happens(0.0) && random.happens(1.0));
    }
}
