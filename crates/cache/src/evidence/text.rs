//! A text as tokens: words, numbers and codes, with what the lists say of each.

use super::lexicon::{Lexicon, NumberWord, PHRASE_WORDS_MAX, Senses, lexicon};
use super::number::Number;
use super::scan::{Scan, Word};
use super::stem::stem;

/// A word, number or code of a text, or a phrase that the lists know.
#[derive(Clone, Debug)]
pub(super) struct Token {
    start: u32,
    end: u32,
    /// Hash of the stem, of the code as written, or of the number.
    pub(super) key: u64,
    pub(super) senses: Senses,
    pub(super) number: Option<Number>,
    /// Has marks, digits or capitals inside: a file, a flag, an identifier, an operator.
    pub(super) is_code: bool,
    /// Capitalised where its place alone doesn't explain it.
    pub(super) is_proper: bool,
}

/// A text ready to be compared.
#[derive(Debug)]
pub(super) struct Text {
    /// Lower case, tokens separated by one space.
    normal: String,
    pub(super) tokens: Vec<Token>,
}

impl Text {
    pub(super) fn read(text: &str) -> Self {
        let scan = Scan::read(text);
        let mut tokens = resolve(&scan, lexicon());
        join_particles(&mut tokens, &scan, lexicon());
        read_numbers(&mut tokens);
        Self { normal: scan.normal, tokens }
    }

    /// The token as it stands in the normal form.
    pub(super) fn word(&self, token: &Token) -> &str {
        &self.normal[token.start as usize..token.end as usize]
    }
}

impl Token {
    /// Whether it carries content that another text may lack.
    pub(super) fn is_content(&self) -> bool {
        self.number.is_none() && !self.senses.is_stop && !self.senses.is_negation
    }

    /// A thing with a name: known, spelled like one, or code.
    pub(super) fn is_name(&self) -> bool {
        self.number.is_none() && (self.senses.name.is_some() || self.is_code || self.is_proper)
    }

    /// Whether both may say the same: same stem, or same or synonymous meaning.
    pub(super) fn means(&self, other: &Self) -> bool {
        if self.key == other.key {
            return true;
        }
        let (a, b) = (&self.senses, &other.senses);
        a.name.is_some_and(|a| b.name.is_some_and(|b| a.id == b.id))
            || a.date.is_some_and(|a| b.date.is_some_and(|b| a.id == b.id))
            || a.shares_unit(b)
            || a.synonyms.iter().any(|id| *id != 0 && b.synonyms.contains(id))
            || a.poles.iter().flatten().any(|pole| b.poles.contains(&Some(*pole)))
    }
}

/// Joins words to known phrases, longest first, and looks each up.
fn resolve(scan: &Scan, lexicon: &Lexicon) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(scan.words.len());
    let mut at = 0;
    while let Some(word) = scan.words.get(at) {
        let (count, senses) = phrase(scan, lexicon, at);
        let end = scan.words[at + count - 1].end;
        let mut token = Token {
            start: word.start,
            end,
            key: 0,
            senses,
            number: word.number.clone().filter(|_| count == 1),
            is_code: word.is_code && count == 1,
            is_proper: word.is_proper,
        };
        let text = &scan.normal[word.start as usize..end as usize];
        disambiguate(&mut token, scan, at, count);
        token.key = token.number.as_ref().map_or_else(|| key(text, &token), |number| number.key);
        tokens.push(token);
        at += count;
    }
    tokens
}

fn key(text: &str, token: &Token) -> u64 {
    hash(if token.is_code { text } else { stem(text) })
}

/// How many words from `at` on make a known phrase, and its senses.
fn phrase(scan: &Scan, lexicon: &Lexicon, at: usize) -> (usize, Senses) {
    let first = scan.text(&scan.words[at]);
    let longest = lexicon.longest_phrase(first).min(PHRASE_WORDS_MAX).min(scan.words.len() - at);
    for count in (2..=longest).rev() {
        let words = &scan.words[at..at + count];
        // A phrase doesn't reach over a sentence's end.
        if words[1..].iter().any(|word| word.is_initial) {
            continue;
        }
        let text = &scan.normal[words[0].start as usize..words[count - 1].end as usize];
        if let Some(senses) = lexicon.exact(text) {
            return (count, *senses);
        }
    }
    let known = lexicon.exact(first).copied().filter(Senses::is_known);
    let senses = known.or_else(|| lexicon.by_stem(stem(first)).copied());
    (1, senses.unwrap_or_default())
}

/// Drops senses that an ordinary word has only in some places.
fn disambiguate(token: &mut Token, scan: &Scan, at: usize, count: usize) {
    let before = at.checked_sub(1).map(|i| &scan.words[i]);
    let after = scan.words.get(at + count);
    let is_number = |word: Option<&Word>| word.is_some_and(|word| word.number.is_some());
    if token.senses.name.is_some_and(|name| name.is_ambiguous) && !token.is_proper {
        token.senses.name = None;
    }
    if token.senses.units.iter().flatten().any(|unit| unit.is_ambiguous) && !is_number(before) {
        token.senses.units = [None; 2];
    }
    if token.senses.date.is_some_and(|date| date.is_ambiguous) {
        let is_led = before.is_some_and(|word| LEADS_A_DATE.contains(&scan.text(word)));
        if !(token.is_proper || is_led || is_number(before) || is_number(after)) {
            token.senses.date = None;
        }
    }
    if count == 1 && before.is_some_and(|word| LEADS_AN_ORDINAL.contains(&scan.text(word))) {
        match scan.text(&scan.words[at]) {
            "second" => {
                token.senses.number = Some(NumberWord::Value { value: 2.0, is_weak: false });
                token.senses.units = [None; 2];
            }
            "one" | "ones" => token.senses.number = None,
            _ => {}
        }
    }
}

const LEADS_A_DATE: [&str; 17] = [
    "in", "on", "by", "until", "till", "since", "of", "last", "next", "this", "from", "before", "after",
    "early", "late", "mid", "every",
];

const LEADS_AN_ORDINAL: [&str; 9] = ["the", "my", "our", "your", "his", "her", "their", "which", "this"];

/// Words between a verb and its particle, at most.
const PARTICLE_REACH: usize = 5;

/// Sees "turn dark mode off" as "turn off".
fn join_particles(tokens: &mut [Token], scan: &Scan, lexicon: &Lexicon) {
    let word = |token: &Token| &scan.normal[token.start as usize..token.end as usize];
    for at in 1..tokens.len() {
        let phrase = match word(&tokens[at]) {
            "on" => "turn on",
            "off" => "turn off",
            _ => continue,
        };
        let before = &tokens[at.saturating_sub(PARTICLE_REACH)..at];
        if before.iter().any(|token| TAKES_A_PARTICLE.contains(&stem(word(token)))) {
            tokens[at].senses.poles =
                lexicon.exact(phrase).map_or_else(Default::default, |senses| senses.poles);
        }
    }
}

const TAKES_A_PARTICLE: [&str; 6] = ["turn", "switch", "toggl", "power", "leav", "set"];

/// Gives number words their values: "twenty five", "two hundred", "5 million".
fn read_numbers(tokens: &mut Vec<Token>) {
    let mut read: Vec<Token> = Vec::with_capacity(tokens.len());
    for mut token in tokens.drain(..) {
        if let Some(word) = token.senses.number {
            let before = read.last_mut().and_then(|last: &mut Token| last.number.as_mut());
            if before.is_some_and(|before| before.absorb(word)) {
                continue;
            }
            token.number.get_or_insert_with(|| Number::of_word(word));
        }
        if let Some(number) = &token.number {
            token.key = number.key;
        }
        read.push(token);
    }
    mark_years(&mut read);
    *tokens = read;
}

/// A year stands alone: what has a unit after it is a quantity.
fn mark_years(tokens: &mut [Token]) {
    for at in 0..tokens.len() {
        let has_unit = tokens.get(at + 1).is_some_and(|next| next.senses.units[0].is_some())
            || at > 0 && tokens[at - 1].senses.units[0].is_some();
        if let Some(number) = tokens[at].number.as_mut() {
            number.is_year = number.looks_like_year && !has_unit;
        }
    }
}

/// FNV-1a: short texts, no adversary (a collision hides one difference of two words that nobody can choose to serve).
pub(super) fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
