//! Cuts a text into words: apostrophes, hyphens, currency signs, codes and sentence borders.

use super::number::{Number, read_number};

/// A word of the scanned text.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) number: Option<Number>,
    pub(super) is_code: bool,
    pub(super) is_proper: bool,
    /// First of its sentence.
    pub(super) is_initial: bool,
}

/// The words, and the lower-case text they stand in, one space apart.
pub(super) struct Scan {
    pub(super) normal: String,
    pub(super) words: Vec<Word>,
    starts_sentence: bool,
}

/// Marks around a word that say nothing of it.
const EDGES: &[char] = &[
    '.', ',', '?', '!', ';', ':', '"', '\'', '(', ')', '[', ']', '{', '}', '’', '‘', '“', '”', '…', '¿', '¡',
    '«', '»', '`', '*', '。', '，', '？', '！', '、',
];

/// Currency and percent signs, which are words of their own.
const SIGNS: &[char] = &['$', '€', '£', '¥', '₹', '₩', '%'];

impl Scan {
    pub(super) fn read(text: &str) -> Self {
        let mut scan =
            Self { normal: String::with_capacity(text.len() + 8), words: Vec::new(), starts_sentence: true };
        for chunk in text.split_whitespace() {
            scan.chunk(chunk);
            let bare = chunk.trim_end_matches(['"', '\'', ')', '”', '’']);
            scan.starts_sentence = bare.ends_with(['.', '?', '!', '。', '？', '！', ':'])
                || scan.starts_sentence && scan.words.is_empty();
        }
        scan.unmark_shouted_names();
        scan
    }

    pub(super) fn text(&self, word: &Word) -> &str {
        &self.normal[word.start as usize..word.end as usize]
    }

    fn chunk(&mut self, chunk: &str) {
        let bare = chunk.trim_matches(EDGES);
        if bare.is_empty() {
            // Bold marks and bullets aside, a lone asterisk is an operator.
            return if chunk == "*" {
                self.push(chunk, Flags { is_code: true, ..Flags::default() })
            };
        }
        if !bare.chars().any(char::is_alphanumeric) {
            self.symbol(bare);
        } else if let Some(rest) = bare.strip_prefix(SIGNS) {
            self.push(&bare[..bare.len() - rest.len()], Flags::default());
            self.chunk(rest);
        } else if let Some(rest) = bare.strip_suffix(SIGNS) {
            self.chunk(rest);
            self.push(&bare[rest.len()..], Flags::default());
        } else if bare.starts_with(|c: char| c.is_ascii_digit()) {
            self.digits(bare);
        } else if is_option(bare) {
            self.push(bare, Flags { is_code: true, ..Flags::default() });
        } else {
            self.word_or_code(bare);
        }
    }

    /// An operator is a code; a dash, a bullet or an "&" is nothing.
    fn symbol(&mut self, bare: &str) {
        if SIGNS.iter().any(|sign| bare.contains(*sign)) {
            self.push(bare, Flags::default());
        } else if bare.chars().all(|c| "=<>+/%|^~!@#\\&-".contains(c))
            && !["-", "--", "&", "/", "#", "|"].contains(&bare)
        {
            self.push(bare, Flags { is_code: true, ..Flags::default() });
        }
    }

    /// "80", "10k", "50mm", "6-year-old", "3-5", "2fa".
    fn digits(&mut self, bare: &str) {
        if let Some((left, right)) = bare.split_once(['-', '–']) {
            self.chunk(left);
            self.chunk(right);
            return;
        }
        let lower = bare.to_lowercase();
        match read_number(&lower) {
            Some((number, "")) => self.push(&lower, Flags { number: Some(number), ..Flags::default() }),
            Some((number, rest)) if rest.bytes().all(|b| b.is_ascii_alphabetic()) && is_suffix(rest) => {
                let digits = &lower[..lower.len() - rest.len()];
                self.push(digits, Flags { number: Some(number), ..Flags::default() });
                self.push(rest, Flags::default());
            }
            _ => self.push(&lower, Flags { is_code: true, ..Flags::default() }),
        }
    }

    fn word_or_code(&mut self, bare: &str) {
        if let Some(version) =
            bare.strip_prefix(['v', 'V']).filter(|v| v.starts_with(|c: char| c.is_ascii_digit()))
        {
            return self.digits(version);
        }
        if is_either_or(bare) {
            bare.split('/').for_each(|part| self.chunk(part));
        } else if is_code(bare) {
            let is_proper = self.is_proper(bare);
            self.push(bare, Flags { is_code: true, is_proper, ..Flags::default() });
        } else {
            bare.split(['-', '–', '—', '/'])
                .filter(|part| !part.is_empty())
                .for_each(|part| self.plain(part));
        }
    }

    /// Takes off 's and the like; makes "not" of "n't".
    fn plain(&mut self, part: &str) {
        let is_proper = self.is_proper(part);
        let word = part.trim_matches(EDGES).replace('’', "'");
        let flags = Flags { is_proper, ..Flags::default() };
        let lower = word.to_lowercase();
        let Some((base, tail)) = lower.split_once('\'') else { return self.push(&lower, flags) };
        match (base, tail) {
            ("won", "t") => self.push("will", flags),
            ("can", "t") => self.push("can", flags),
            (base, "t") if base.ends_with('n') => self.push(&base[..base.len() - 1], flags),
            (base, "s" | "re" | "ll" | "ve" | "d" | "m") => return self.push(base, flags),
            _ => return self.push(&lower, flags),
        }
        self.push("not", Flags::default());
    }

    /// "I" and its contractions are capitals of grammar.
    fn is_proper(&self, word: &str) -> bool {
        let is_pronoun = word == "I" || word.starts_with("I'") || word.starts_with("I’");
        !self.starts_sentence && !is_pronoun && word.chars().next().is_some_and(char::is_uppercase)
    }

    fn push(&mut self, text: &str, flags: Flags) {
        if text.is_empty() {
            return;
        }
        if !self.normal.is_empty() {
            self.normal.push(' ');
        }
        let start = self.normal.len() as u32;
        self.normal.extend(text.chars().flat_map(char::to_lowercase));
        let Flags { number, is_code, is_proper } = flags;
        let end = self.normal.len() as u32;
        self.words.push(Word { start, end, number, is_code, is_proper, is_initial: self.starts_sentence });
        self.starts_sentence = false;
    }

    /// In a title or in capitals throughout, capitals say nothing.
    fn unmark_shouted_names(&mut self) {
        let proper = self.words.iter().filter(|word| word.is_proper).count();
        if self.words.len() > 3 && proper * 5 > self.words.len() * 3 {
            self.words.iter_mut().for_each(|word| word.is_proper = false);
        }
    }
}

#[derive(Default)]
struct Flags {
    number: Option<Number>,
    is_code: bool,
    is_proper: bool,
}

/// Letters that may follow digits directly and leave a number: units, "x", "am", "pm".
fn is_suffix(rest: &str) -> bool {
    matches!(rest, "x" | "am" | "pm" | "s" | "m" | "h" | "d" | "g" | "l" | "c" | "f" | "w" | "v" | "b" | "in")
        || super::lexicon::lexicon().exact(rest).is_some_and(|senses| senses.units[0].is_some())
}

/// A command's option: "-r", "--force".
fn is_option(bare: &str) -> bool {
    bare.starts_with('-') && bare.trim_start_matches('-').starts_with(|c: char| c.is_ascii_alphabetic())
}

/// "and/or", "TCP/UDP".
fn is_either_or(bare: &str) -> bool {
    bare.matches('/').count() == 1
        && !bare.starts_with('/')
        && bare.chars().all(|c| c.is_alphabetic() || c == '/')
}

fn is_code(bare: &str) -> bool {
    let has_mark = bare
        .contains(['_', '/', '\\', '@', '#', '=', '<', '>', '~', '$', '+', '&', '|', '^', '('])
        || bare.contains("::")
        || bare.contains('.')
        || bare.bytes().any(|b| b.is_ascii_digit());
    has_mark
        || bare.as_bytes().windows(2).any(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase())
}
