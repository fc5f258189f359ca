//! Lexical evidence: what two texts say differently that a small embedding model hardly sees.
//!
//! English first; on other languages the word lists find nothing, and numbers, codes and capitalised names still count.
//! Pure, symmetric in its mismatches, without regular expressions; the word lists are data files beside this one.

mod differ;
mod lexicon;
mod number;
mod scan;
mod stem;
mod text;

use refrain_core::Veto;

use text::{Text, Token};

/// What is known about one candidate for an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Cosine similarity of the two texts' vectors.
    pub cosine: f32,
    /// How much closer this candidate is than the next one, if there is one.
    pub margin: Option<f32>,
    /// The texts themselves.
    pub lexical: Lexical,
}

/// What the words alone tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lexical {
    /// Shared tokens over all tokens, 0 to 1.
    pub jaccard: f32,
    /// Shared pairs of neighbouring tokens over all, 0 to 1.
    pub bigram_jaccard: f32,
    /// Tokens of the shorter over those of the longer text, 0 to 1.
    pub length_ratio: f32,
    /// The texts name different numbers.
    pub number: bool,
    /// One is negated or turned to its opposite.
    pub negation: bool,
    /// They name different things, or the same in another order.
    pub name: bool,
    /// They differ in a date or relative time.
    pub date: bool,
    /// They differ in a unit or currency.
    pub unit: bool,
}

impl Evidence {
    /// A measure by its name: `cosine`, `margin`, `jaccard`, or a veto's (1 where the texts differ in it, else 0). None for
    /// other names, and for the margin of the last candidate.
    pub fn measure(&self, name: &str) -> Option<f32> {
        match name {
            "cosine" => Some(self.cosine),
            "margin" => self.margin,
            "jaccard" => Some(self.lexical.jaccard),
            _ => {
                let veto = Veto::ALL.into_iter().find(|veto| veto.as_str() == name)?;
                Some(if self.lexical.speaks_for(veto) { 1.0 } else { 0.0 })
            }
        }
    }
}

impl Lexical {
    /// Whether this evidence speaks for `veto`.
    pub fn speaks_for(&self, veto: Veto) -> bool {
        match veto {
            Veto::Number => self.number,
            Veto::Negation => self.negation,
            Veto::Name => self.name,
            Veto::Date => self.date,
            Veto::Unit => self.unit,
        }
    }
}

/// Compares two texts. Symmetric; identical texts have no mismatch.
pub fn compare(a: &str, b: &str) -> Lexical {
    Question::read(a).compare(b)
}

/// A text that several others are compared with: read once.
pub(crate) struct Question(Text);

impl Question {
    pub(crate) fn read(text: &str) -> Self {
        Self(Text::read(text))
    }

    pub(crate) fn compare(&self, other: &str) -> Lexical {
        let (a, b) = (&self.0, &Text::read(other));
        Lexical {
            jaccard: jaccard(a.tokens.iter().map(key), b.tokens.iter().map(key)),
            bigram_jaccard: jaccard(bigrams(a), bigrams(b)),
            length_ratio: length_ratio(a.tokens.len(), b.tokens.len()),
            number: number::numbers_differ(a, b),
            negation: differ::polarity_differs(a, b),
            name: differ::names_differ(a, b),
            date: differ::dates_differ(a, b),
            unit: differ::units_differ(a, b),
        }
    }
}

fn key(token: &Token) -> u64 {
    token.key
}

fn bigrams(text: &Text) -> impl Iterator<Item = u64> {
    text.tokens.windows(2).map(|pair| pair[0].key.rotate_left(17) ^ pair[1].key)
}

/// Shared over all, of the two sets. Two empty sets are equal.
fn jaccard(a: impl Iterator<Item = u64>, b: impl Iterator<Item = u64>) -> f32 {
    let (a, b) = (sorted_set(a), sorted_set(b));
    let shared = a.iter().filter(|key| b.binary_search(key).is_ok()).count();
    match a.len() + b.len() - shared {
        0 => 1.0,
        all => shared as f32 / all as f32,
    }
}

fn sorted_set(keys: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut keys: Vec<u64> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn length_ratio(a: usize, b: usize) -> f32 {
    match a.max(b) {
        0 => 1.0,
        longer => a.min(b) as f32 / longer as f32,
    }
}

#[cfg(test)]
mod tests;
