//! The word lists, read once from the data files beside this one into a single table.
//!
//! The lists hold general English and well-known names. A few entries were added after reading errors on the development
//! halves of the labelled pairs: docs/decisions/0004-semantic-decision.md.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::stem::stem;

/// Longest phrase in words.
pub(super) const PHRASE_WORDS_MAX: usize = 4;

/// Meanings of one kind that one word may have.
const MEANINGS_MAX: usize = 4;

/// One side of a pair of opposites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pole {
    pub(super) axis: u16,
    pub(super) is_right: bool,
}

/// A date word: which one, of which kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateWord {
    pub(super) id: u16,
    /// Naming it in one text alone is a difference.
    pub(super) is_strong: bool,
    /// Also an ordinary word.
    pub(super) is_ambiguous: bool,
}

/// Something with an id, that may also be an ordinary word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) id: u16,
    pub(super) is_ambiguous: bool,
}

/// A number word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NumberWord {
    Value { value: f64, is_weak: bool },
    Times(f64),
}

/// All that the lists say of one word or phrase.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Senses {
    pub(super) is_stop: bool,
    pub(super) is_negation: bool,
    pub(super) poles: [Option<Pole>; MEANINGS_MAX],
    pub(super) synonyms: [u16; MEANINGS_MAX],
    pub(super) date: Option<DateWord>,
    pub(super) units: [Option<Named>; 2],
    pub(super) name: Option<Named>,
    pub(super) number: Option<NumberWord>,
    /// Words of the longest phrase that starts with this word.
    phrase_words: u8,
}

impl Senses {
    /// Whether a list knows the word as more than a stop word.
    pub(super) fn is_known(&self) -> bool {
        self.is_stop
            || self.is_negation
            || self.poles[0].is_some()
            || self.synonyms[0] != 0
            || self.date.is_some()
            || self.units[0].is_some()
            || self.name.is_some()
            || self.number.is_some()
    }

    /// Whether both may stand for one unit ("pounds" are weight or money).
    pub(super) fn shares_unit(&self, other: &Self) -> bool {
        self.units.iter().flatten().any(|a| other.units.iter().flatten().any(|b| a.id == b.id))
    }

    fn add_pole(&mut self, pole: Pole) {
        if let Some(free) = self.poles.iter_mut().find(|p| p.is_none_or(|p| p == pole)) {
            *free = Some(pole);
        }
    }

    fn add_unit(&mut self, unit: Named) {
        if let Some(free) = self.units.iter_mut().find(|u| u.is_none()) {
            *free = Some(unit);
        }
    }

    fn add_synonym(&mut self, id: u16) {
        if let Some(free) = self.synonyms.iter_mut().find(|s| **s == 0 || **s == id) {
            *free = id;
        }
    }
}

/// Word or phrase (words joined by one space, lower case) to its senses; and single words' stems, as a fall-back.
#[derive(Default)]
pub(super) struct Lexicon {
    words: HashMap<&'static str, Senses>,
    stems: HashMap<&'static str, Senses>,
}

static LEXICON: LazyLock<Lexicon> = LazyLock::new(Lexicon::read);

/// The one lexicon.
pub(super) fn lexicon() -> &'static Lexicon {
    &LEXICON
}

impl Lexicon {
    /// Senses of a word or phrase as written.
    pub(super) fn exact(&self, text: &str) -> Option<&Senses> {
        self.words.get(text)
    }

    /// Senses of an inflected form: poles, synonyms and units only.
    pub(super) fn by_stem(&self, stem: &str) -> Option<&Senses> {
        self.stems.get(stem)
    }

    /// Words of the longest phrase that starts with `word`; 1 if there is none.
    pub(super) fn longest_phrase(&self, word: &str) -> usize {
        self.words.get(word).map_or(1, |senses| usize::from(senses.phrase_words.max(1)))
    }

    fn read() -> Self {
        let mut lexicon = Self::default();
        lexicon.read_plain(include_str!("data/stopwords.txt"), |senses| senses.is_stop = true);
        lexicon.read_plain(include_str!("data/negations.txt"), |senses| senses.is_negation = true);
        lexicon.read_antonyms(include_str!("data/antonyms.txt"));
        lexicon.read_synonyms(include_str!("data/synonyms.txt"));
        lexicon.read_dates(include_str!("data/dates.txt"));
        lexicon.read_named(include_str!("data/units.txt"), Senses::add_unit);
        lexicon.read_named(include_str!("data/names.txt"), |senses, named| senses.name = Some(named));
        lexicon.read_numbers(include_str!("data/numbers.txt"));
        lexicon.index_stems();
        lexicon
    }

    fn read_plain(&mut self, data: &'static str, mark: fn(&mut Senses)) {
        for word in lines(data).flat_map(alternatives) {
            mark(self.entry(word));
        }
    }

    fn read_antonyms(&mut self, data: &'static str) {
        for (axis, line) in lines(data).enumerate() {
            for (side, words) in line.split('|').enumerate() {
                for word in alternatives(words) {
                    self.entry(word).add_pole(Pole { axis: axis as u16, is_right: side > 0 });
                }
            }
        }
    }

    fn read_synonyms(&mut self, data: &'static str) {
        for (group, line) in lines(data).enumerate() {
            for word in alternatives(line) {
                self.entry(word).add_synonym(group as u16 + 1);
            }
        }
    }

    fn read_dates(&mut self, data: &'static str) {
        for (id, line) in lines(data).enumerate() {
            let Some((class, words)) = line.split_once(':') else { continue };
            for word in alternatives(words) {
                let (word, is_ambiguous) = ambiguous(word);
                let is_strong = class.ends_with('!');
                self.entry(word).date = Some(DateWord { id: id as u16, is_strong, is_ambiguous });
            }
        }
    }

    fn read_named(&mut self, data: &'static str, mark: fn(&mut Senses, Named)) {
        for (id, line) in lines(data).enumerate() {
            for word in alternatives(line) {
                let (word, is_ambiguous) = ambiguous(word);
                mark(self.entry(word), Named { id: id as u16, is_ambiguous });
            }
        }
    }

    fn read_numbers(&mut self, data: &'static str) {
        for line in lines(data) {
            let Some((value, words)) = line.split_once(':') else { continue };
            let number = match (value.strip_prefix('x'), value.strip_prefix('~')) {
                (Some(times), _) => times.parse().map(NumberWord::Times),
                (_, Some(weak)) => weak.parse().map(|value| NumberWord::Value { value, is_weak: true }),
                _ => value.parse().map(|value| NumberWord::Value { value, is_weak: false }),
            };
            for word in alternatives(words) {
                self.entry(word).number = number.clone().ok();
            }
        }
    }

    fn entry(&mut self, text: &'static str) -> &mut Senses {
        let words = text.split(' ').count().min(PHRASE_WORDS_MAX) as u8;
        if let Some(first) = text.split(' ').next() {
            let first = self.words.entry(first).or_default();
            first.phrase_words = first.phrase_words.max(words);
        }
        self.words.entry(text).or_default()
    }

    fn index_stems(&mut self) {
        for (word, senses) in &self.words {
            let is_inflected =
                senses.poles[0].is_some() || senses.synonyms[0] != 0 || senses.units[0].is_some();
            if !is_inflected || senses.is_stop || word.contains(' ') {
                continue;
            }
            let merged = self.stems.entry(stem(word)).or_default();
            senses.poles.iter().flatten().for_each(|pole| merged.add_pole(*pole));
            senses.synonyms.iter().filter(|id| **id != 0).for_each(|id| merged.add_synonym(*id));
        }
    }
}

fn lines(data: &'static str) -> impl Iterator<Item = &'static str> {
    data.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn alternatives(line: &'static str) -> impl Iterator<Item = &'static str> {
    line.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn ambiguous(word: &'static str) -> (&'static str, bool) {
    match word.strip_suffix('?') {
        Some(word) => (word, true),
        None => (word, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_lists_is_readable() {
        for line in lines(include_str!("data/antonyms.txt")) {
            let sides: Vec<_> = line.split('|').collect();
            assert_eq!(sides.len(), 2, "{line}");
            assert!(sides.iter().all(|side| alternatives(side).next().is_some()), "{line}");
            assert!(
                alternatives(sides[0]).all(|left| alternatives(sides[1]).all(|right| left != right)),
                "{line}"
            );
        }
        for data in [include_str!("data/dates.txt"), include_str!("data/numbers.txt")] {
            assert!(lines(data).all(|line| line.contains(": ")));
        }
        let words = lexicon().words.keys();
        assert!(words.clone().all(|word| word.split(' ').count() <= PHRASE_WORDS_MAX));
        assert!(words.clone().all(|word| word.to_lowercase() == **word));
    }
}
