//! Numbers: how they are written, when two are one, and when two texts differ in theirs.

use super::lexicon::NumberWord;
use super::text::{Text, Token, hash};

/// A number in a text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Number {
    /// Equal for equal values.
    pub(super) key: u64,
    /// May be an article ("one") or a filler: alone it makes no difference.
    pub(super) is_weak: bool,
    /// Written like a year.
    pub(super) looks_like_year: bool,
    /// Stands where a year stands: compared as a date.
    pub(super) is_year: bool,
    /// What it counts; none for versions, times and fractions, which are compared as written.
    value: Option<f64>,
}

impl Number {
    fn of_value(value: f64) -> Self {
        let looks_like_year = (1900.0..2100.0).contains(&value) && value.fract() == 0.0;
        Self { key: value.to_bits(), is_weak: false, looks_like_year, is_year: false, value: Some(value) }
    }

    fn as_written(text: &str) -> Self {
        Self { key: hash(text), is_weak: false, looks_like_year: false, is_year: false, value: None }
    }

    pub(super) fn of_word(word: NumberWord) -> Self {
        match word {
            NumberWord::Value { value, is_weak } => {
                Self { is_weak, looks_like_year: false, ..Self::of_value(value) }
            }
            NumberWord::Times(value) => Self { looks_like_year: false, ..Self::of_value(value) },
        }
    }

    /// Takes in the word after it: "5 million", "twenty five". Whether it could.
    pub(super) fn absorb(&mut self, word: NumberWord) -> bool {
        let Some(value) = self.value else { return false };
        let whole = match word {
            NumberWord::Times(times) => value * times,
            NumberWord::Value { value: units, .. } if takes_units(value) && (1.0..10.0).contains(&units) => {
                value + units
            }
            NumberWord::Value { .. } => return false,
        };
        *self = Self { looks_like_year: false, ..Self::of_value(whole) };
        true
    }
}

/// 20, 30, ... 90.
fn takes_units(value: f64) -> bool {
    (20.0..100.0).contains(&value) && value % 10.0 == 0.0
}

/// A number at the start of `chunk` (which starts with a digit), and the rest: "10k" -> 10,000 and "".
///
/// None if it isn't one: "2fa" is a code.
pub(super) fn read_number(chunk: &str) -> Option<(Number, &str)> {
    let end =
        chunk.bytes().position(|b| !(b.is_ascii_digit() || b".,:/".contains(&b))).unwrap_or(chunk.len());
    let (digits, rest) = chunk.split_at(end);
    let digits = digits.trim_end_matches(['.', ',', ':', '/']);
    let rest = if digits.len() < end { "" } else { rest };
    let number = plain(digits).map_or_else(|| Number::as_written(digits), Number::of_value);
    match rest {
        "st" | "nd" | "rd" | "th" => Some((number, "")),
        "k" => scaled(number, 1e3),
        "mn" | "mio" => scaled(number, 1e6),
        "bn" => scaled(number, 1e9),
        _ => Some((number, rest)),
    }
}

fn scaled(mut number: Number, times: f64) -> Option<(Number, &'static str)> {
    number.absorb(NumberWord::Times(times)).then_some((number, ""))
}

/// The value of "12", "1,000", "3.5" and "2.0". "3.10" is no value: as a version it is not "3.1".
fn plain(digits: &str) -> Option<f64> {
    if digits.contains([':', '/']) || digits.matches('.').count() > 1 {
        return None;
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.contains(',') || fraction.ends_with('0') && fraction.bytes().any(|b| b != b'0') {
        return None;
    }
    let groups_are_thousands = whole.split(',').skip(1).all(|group| group.len() == 3);
    if !groups_are_thousands || whole.len() > 20 {
        return None;
    }
    let text: String =
        whole.chars().filter(|c| *c != ',').chain(".".chars()).chain(fraction.chars()).collect();
    text.parse().ok()
}

/// Whether a number of one text has no like in the other, or the same numbers stand in other places.
pub(super) fn numbers_differ(a: &Text, b: &Text) -> bool {
    let (in_a, in_b) = (places(a), places(b));
    lacks(&in_a, &in_b) || lacks(&in_b, &in_a) || swapped(a, &in_a, b, &in_b)
}

/// Positions of the numbers that aren't years.
fn places(text: &Text) -> Vec<(usize, &Number)> {
    let number = |(at, token): (usize, &'_ Token)| token.number.as_ref().map(|_| at);
    let positions = text.tokens.iter().enumerate().filter_map(number);
    positions
        .filter_map(|at| Some((at, text.tokens[at].number.as_ref()?)))
        .filter(|(_, n)| !n.is_year)
        .collect()
}

/// Whether `other` has fewer of some number than `these` has without its fillers.
fn lacks(these: &[(usize, &Number)], other: &[(usize, &Number)]) -> bool {
    these.iter().any(|(_, number)| {
        let strong = these.iter().filter(|(_, n)| n.key == number.key && !n.is_weak).count();
        strong > other.iter().filter(|(_, n)| n.key == number.key).count()
    })
}

/// Whether the order differs and a number has other neighbours than before: "from 3 to 5", "from 5 to 3".
fn swapped(a: &Text, in_a: &[(usize, &Number)], b: &Text, in_b: &[(usize, &Number)]) -> bool {
    let keys = |places: &[(usize, &Number)]| -> Vec<u64> { places.iter().map(|(_, n)| n.key).collect() };
    if in_a.len() != in_b.len() || keys(in_a) == keys(in_b) {
        return false;
    }
    let is_moved = |at: usize, number: &Number| {
        let mut likes = in_b.iter().filter(|(_, like)| like.key == number.key);
        !likes.any(|(other, _)| same_neighbour(a, at, b, *other))
    };
    in_a.iter().any(|(at, number)| is_moved(*at, number))
}

fn same_neighbour(a: &Text, in_a: usize, b: &Text, in_b: usize) -> bool {
    let key = |text: &Text, at: Option<usize>| at.and_then(|at| text.tokens.get(at)).map(|token| token.key);
    let same = |x: Option<u64>, y: Option<u64>| x.is_some() && x == y;
    same(key(a, in_a.checked_sub(1)), key(b, in_b.checked_sub(1)))
        || same(key(a, Some(in_a + 1)), key(b, Some(in_b + 1)))
}
