//! How two texts differ in polarity, dates, units and names.

use super::stem::{is_typo, stem};
use super::text::{Text, Token};

/// Whether one text negates and the other doesn't, or they hold opposites.
pub(super) fn polarity_differs(a: &Text, b: &Text) -> bool {
    is_negated(a) != is_negated(b) || holds_opposites(a, b) || differs_by_affix(a, b)
}

fn is_negated(text: &Text) -> bool {
    text.tokens.iter().any(|token| token.senses.is_negation)
}

/// An axis of which one text holds the left and the other the right side only.
fn holds_opposites(a: &Text, b: &Text) -> bool {
    let side = |text: &Text, axis: u16, is_right: bool| {
        poles(text).any(|pole| pole.axis == axis && pole.is_right == is_right)
    };
    poles(a).any(|pole| {
        let (axis, right) = (pole.axis, pole.is_right);
        !side(a, axis, !right) && side(b, axis, !right) && !side(b, axis, right)
    })
}

fn poles(text: &Text) -> impl Iterator<Item = super::lexicon::Pole> {
    text.tokens.iter().flat_map(|token| token.senses.poles.iter().flatten().copied())
}

const OPPOSING_PREFIXES: [&str; 9] = ["un", "in", "im", "il", "ir", "dis", "non", "mis", "de"];

/// "refundable" and "unrefundable", "useful" and "useless", where neither text has both.
fn differs_by_affix(a: &Text, b: &Text) -> bool {
    let only_a = unmatched(a, b);
    let only_b = unmatched(b, a);
    only_a.iter().any(|x| only_b.iter().any(|y| is_affixed_opposite(a.word(x), b.word(y))))
}

fn is_affixed_opposite(a: &str, b: &str) -> bool {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let by_prefix = OPPOSING_PREFIXES.iter().any(|prefix| {
        long.strip_prefix(prefix)
            .is_some_and(|base| base.len() >= 4 && short.len() >= 4 && stem(base) == stem(short))
    });
    let base = |word: &'_ str, suffix: &str| word.strip_suffix(suffix).map(str::len);
    let by_suffix = match (base(a, "ful"), base(b, "less"), base(a, "less"), base(b, "ful")) {
        (Some(full), Some(less), _, _) | (_, _, Some(less), Some(full)) => {
            full == less && full >= 3 && a[..full] == b[..full]
        }
        _ => false,
    };
    by_prefix || by_suffix
}

/// Whether each names a date that the other doesn't, of one kind; or one names a month, weekday or year alone.
pub(super) fn dates_differ(a: &Text, b: &Text) -> bool {
    years(a).any(|year| !years(b).any(|other| other == year))
        || years(b).any(|year| !years(a).any(|other| other == year))
        || strong_dates_differ(a, b)
        || strong_dates_differ(b, a)
        || (weak_date_alone(a, b) && weak_date_alone(b, a))
}

fn years(text: &Text) -> impl Iterator<Item = u64> {
    text.tokens.iter().filter_map(|token| token.number.as_ref()).filter(|n| n.is_year).map(|n| n.key)
}

fn strong_dates_differ(a: &Text, b: &Text) -> bool {
    a.tokens.iter().any(|token| token.senses.date.is_some_and(|date| date.is_strong) && !is_dated(token, b))
}

fn weak_date_alone(a: &Text, b: &Text) -> bool {
    a.tokens.iter().any(|token| token.senses.date.is_some() && !is_dated(token, b))
}

fn is_dated(token: &Token, other: &Text) -> bool {
    let id = token.senses.date.map(|date| date.id);
    other.tokens.iter().any(|like| like.senses.date.map(|date| date.id) == id)
}

/// Whether each names a unit that the other doesn't.
pub(super) fn units_differ(a: &Text, b: &Text) -> bool {
    unit_alone(a, b) && unit_alone(b, a)
}

fn unit_alone(a: &Text, b: &Text) -> bool {
    let mut units = a.tokens.iter().filter(|token| token.senses.units[0].is_some());
    units.any(|token| !b.tokens.iter().any(|other| token.senses.shares_unit(&other.senses)))
}

/// Whether they name different things, the same things in swapped places, or differ in what fills one slot.
pub(super) fn names_differ(a: &Text, b: &Text) -> bool {
    let alone_a = names_alone(a, b);
    let alone_b = names_alone(b, a);
    (alone_a.any && alone_b.any)
        || alone_a.known
        || alone_b.known
        || roles_swapped(a, b)
        || is_exchanged(a, b)
        || slot_differs(a, b)
}

struct Alone {
    any: bool,
    known: bool,
}

/// Names of `a` that `b` lacks; `known` ones are in the lists, so that their absence is no matter of spelling.
fn names_alone(a: &Text, b: &Text) -> Alone {
    let mut alone = Alone { any: false, known: false };
    for token in a.tokens.iter().filter(|token| token.is_name()) {
        if !has_like(a, token, b) && !is_initials(a.word(token), b) && !is_spelled_out(a, token, b) {
            alone.any = true;
            alone.known |= token.senses.name.is_some();
        }
    }
    alone
}

/// Whether `b` says the same, or the same mistyped.
fn has_like(a: &Text, token: &Token, b: &Text) -> bool {
    b.tokens.iter().any(|other| {
        token.means(other) || may_be_mistyped(token, other) && is_typo(a.word(token), b.word(other))
    })
}

/// Two known words are two words, and codes are meant as they are.
fn may_be_mistyped(a: &Token, b: &Token) -> bool {
    let are_known = a.senses.is_known() && b.senses.is_known();
    !are_known && !a.is_code && !b.is_code
}

/// "iops" for "input output operations per second".
fn is_initials(word: &str, text: &Text) -> bool {
    let letters = word.as_bytes();
    (2..=6).contains(&letters.len())
        && text.tokens.windows(letters.len()).any(|run| {
            run.iter().zip(letters).all(|(token, letter)| text.word(token).as_bytes().first() == Some(letter))
        })
}

/// The other way round: the token is part of a run whose initials the other text has.
fn is_spelled_out(a: &Text, token: &Token, b: &Text) -> bool {
    let Some(at) = a.tokens.iter().position(|t| std::ptr::eq(t, token)) else { return false };
    b.tokens.iter().any(|other| {
        let letters = b.word(other).as_bytes();
        let fits = |start: usize| {
            a.tokens.get(start..start + letters.len()).is_some_and(|run| {
                run.iter().zip(letters).all(|(t, letter)| a.word(t).as_bytes().first() == Some(letter))
            })
        };
        (2..=6).contains(&letters.len()) && ((at + 1).saturating_sub(letters.len())..=at).any(fits)
    })
}

/// Words that give what follows a role.
const ROLES: [&str; 10] = ["from", "to", "into", "than", "before", "after", "with", "by", "over", "instead"];

/// Words that a role reaches over.
const ROLE_REACH: usize = 3;

/// "from A to B" and "from B to A": one thing loses a role that another gains.
fn roles_swapped(a: &Text, b: &Text) -> bool {
    ROLES.iter().any(|role| {
        let (in_a, in_b) = (governed(a, role), governed(b, role));
        if in_a.is_empty() || in_b.is_empty() {
            return false;
        }
        let lost = in_a.iter().any(|x| holds(b, x) && !in_b.iter().any(|y| x.means(y)));
        let gained = in_b.iter().any(|y| holds(a, y) && !in_a.iter().any(|x| x.means(y)));
        lost && gained
    })
}

fn holds(text: &Text, token: &Token) -> bool {
    text.tokens.iter().any(|other| other.means(token))
}

/// Content after any `role` word, up to the next word without content.
fn governed<'a>(text: &'a Text, role: &str) -> Vec<&'a Token> {
    let mut found = Vec::new();
    for (at, _) in text.tokens.iter().enumerate().filter(|(_, token)| text.word(token) == role) {
        let after = text.tokens[at + 1..]
            .iter()
            .skip_while(|token| matches!(text.word(token), "a" | "an" | "the" | "my" | "of"));
        found.extend(after.take(ROLE_REACH).take_while(|token| token.is_content()));
    }
    found
}

/// Words between two things that change places, at most.
const EXCHANGE_REACH: usize = 6;

/// "visa for X from Y" and "visa for Y from X": two things with the same words between them, the other way round.
///
/// A text that says it both ways says nothing here. By hashes, since texts of some hundred words have some thousand such
/// pairs.
fn is_exchanged(a: &Text, b: &Text) -> bool {
    let (in_a, in_b) = (fingerprints(a), fingerprints(b));
    let holds = |prints: &[u64], print: u64| prints.binary_search(&print).is_ok();
    ordered_pairs(a).any(|(x, between, y)| {
        let (this, other) = (fingerprint(x, between, y), fingerprint(y, between, x));
        holds(&in_b, other) && !holds(&in_b, this) && !holds(&in_a, other)
    })
}

fn fingerprints(text: &Text) -> Vec<u64> {
    let mut prints: Vec<u64> =
        ordered_pairs(text).map(|(x, between, y)| fingerprint(x, between, y)).collect();
    prints.sort_unstable();
    prints
}

fn fingerprint(x: &Token, between: &[Token], y: &Token) -> u64 {
    let keys = between.iter().chain([y]).map(|token| token.key);
    keys.fold(x.key, |hash, key| (hash.rotate_left(23) ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Words whose two sides may change places.
const SYMMETRIC: [&str; 8] = ["and", "or", "vs", "versus", "with", "the", "a", "an"];

/// Two different contents, and the words between them that tell their places apart.
fn ordered_pairs(text: &Text) -> impl Iterator<Item = (&Token, &[Token], &Token)> {
    let tokens = &text.tokens;
    let pairs = (0..tokens.len())
        .flat_map(move |at| (at + 2..tokens.len().min(at + 2 + EXCHANGE_REACH)).map(move |end| (at, end)));
    let pairs = pairs.map(|(at, end)| (&tokens[at], &tokens[at + 1..end], &tokens[end]));
    pairs.filter(|(x, between, y)| {
        let is_symmetric = || between.iter().all(|token| SYMMETRIC.contains(&text.word(token)));
        x.is_content() && y.is_content() && x.key != y.key && !is_symmetric()
    })
}

/// Words of a slot, at most.
const SLOT_WORDS_MAX: usize = 4;

/// Whether the texts are equal but for one place, which different content fills, or a qualifier in one of them.
fn slot_differs(a: &Text, b: &Text) -> bool {
    let pairs = || a.tokens.iter().zip(&b.tokens);
    let head = pairs().take_while(|(x, y)| x.means(y)).count();
    let left = a.tokens.len().min(b.tokens.len()) - head;
    let ends = a.tokens.iter().rev().zip(b.tokens.iter().rev()).take(left);
    let tail = ends.take_while(|(x, y)| x.means(y)).count();
    let (slot_a, slot_b) = (&a.tokens[head..a.tokens.len() - tail], &b.tokens[head..b.tokens.len() - tail]);
    let has_frame = a.tokens[..head].iter().chain(&a.tokens[a.tokens.len() - tail..]).any(Token::is_content);
    let new_in_a = slot_a.iter().any(|token| token.is_content() && !has_like(a, token, b));
    let new_in_b = slot_b.iter().any(|token| token.is_content() && !has_like(b, token, a));
    has_frame
        && slot_a.len().max(slot_b.len()) <= SLOT_WORDS_MAX
        && (new_in_a && new_in_b
            || head > 0 && (new_in_a && slot_b.is_empty() || new_in_b && slot_a.is_empty()))
}

/// Content of `a` whose like `b` lacks.
fn unmatched<'a>(a: &'a Text, b: &Text) -> Vec<&'a Token> {
    a.tokens
        .iter()
        .filter(|token| token.is_content() && !b.tokens.iter().any(|other| other.key == token.key))
        .collect()
}
