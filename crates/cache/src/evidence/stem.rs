//! Inflection and spelling: enough to see that two English words are one.

/// Cuts plural, past and continuous endings, and a final `e` or `y`. Never empty; not a word by itself.
pub(super) fn stem(word: &str) -> &str {
    if !word.is_ascii() || word.len() < 4 {
        return word;
    }
    let cut = plural(word);
    let cut = ending(cut, "ing").or_else(|| ending(cut, "ed")).unwrap_or(cut);
    match cut.as_bytes() {
        [.., b'e' | b'y' | b'i'] if cut.len() > 3 => &cut[..cut.len() - 1],
        _ => cut,
    }
}

fn plural(word: &str) -> &str {
    let keep = |suffix: &str, drop: usize| word.ends_with(suffix).then(|| &word[..word.len() - drop]);
    if word.ends_with("ss") || word.ends_with("us") || word.ends_with("is") {
        return word;
    }
    keep("ies", 2)
        .or_else(|| keep("ches", 2))
        .or_else(|| keep("shes", 2))
        .or_else(|| keep("xes", 2))
        .or_else(|| keep("sses", 2))
        .or_else(|| keep("s", 1))
        .unwrap_or(word)
}

/// The word without `suffix`, and without the consonant that was doubled for it, if a stem with a vowel is left.
fn ending<'a>(word: &'a str, suffix: &str) -> Option<&'a str> {
    let cut = word.strip_suffix(suffix).filter(|cut| cut.len() >= 3)?;
    let bytes = cut.as_bytes();
    if !bytes.iter().any(|b| b"aeiouy".contains(b)) {
        return None;
    }
    match bytes {
        [.., a, b] if a == b && !b"lsze".contains(b) => Some(&cut[..cut.len() - 1]),
        _ => Some(cut),
    }
}

/// Longest word whose spelling is compared.
const TYPO_BYTES_MAX: usize = 24;

/// Whether one word may be the other one mistyped: one edit in five letters, two in nine, or two letters swapped.
pub(super) fn is_typo(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let shorter = a.len().min(b.len());
    if shorter < 4 || a.len().max(b.len()) > TYPO_BYTES_MAX || a.len().abs_diff(b.len()) > 2 {
        return false;
    }
    if is_swap(a, b) {
        return true;
    }
    let edits_max = if shorter >= 9 { 2 } else { 1 };
    shorter >= 5 && a[0] == b[0] && edits(a, b) <= edits_max
}

fn is_swap(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let Some(at) = a.iter().zip(b).position(|(x, y)| x != y) else { return true };
    at + 1 < a.len() && a[at] == b[at + 1] && a[at + 1] == b[at] && a[at + 2..] == b[at + 2..]
}

/// Levenshtein's distance with swaps of neighbours (optimal string alignment).
fn edits(a: &[u8], b: &[u8]) -> usize {
    let mut rows = [[0_usize; TYPO_BYTES_MAX + 1]; 3];
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        let [before, above, row] = turn(&mut rows, i);
        row[0] = i;
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
    }
    rows[a.len() % 3][b.len()]
}

/// Rows `i - 2`, `i - 1` and `i` of the three that are kept.
fn turn(rows: &mut [[usize; TYPO_BYTES_MAX + 1]; 3], i: usize) -> [&mut [usize; TYPO_BYTES_MAX + 1]; 3] {
    let [zero, one, two] = rows;
    match i % 3 {
        0 => [one, two, zero],
        1 => [two, zero, one],
        _ => [zero, one, two],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inflections_share_a_stem() {
        for words in [
            &["enable", "enabled", "enabling", "enables"][..],
            &["stop", "stopped", "stopping", "stops"],
            &["city", "cities"],
            &["watch", "watches", "watched"],
            &["install", "installing", "installed"],
        ] {
            assert!(words.iter().all(|word| stem(word) == stem(words[0])), "{words:?}");
        }
        assert_eq!(stem("bus"), "bus");
        assert_eq!(stem("åre"), "åre");
    }

    #[test]
    fn typos_are_seen_and_other_words_are_not() {
        for (a, b) in
            [("cache", "cahce"), ("vegetarian", "vegitarian"), ("from", "form"), ("install", "instal")]
        {
            assert!(is_typo(a, b) && is_typo(b, a), "{a} {b}");
        }
        for (a, b) in
            [("lima", "lisbon"), ("boiler", "radiator"), ("cat", "car"), ("mars", "cars"), ("home", "house")]
        {
            assert!(!is_typo(a, b) && !is_typo(b, a), "{a} {b}");
        }
    }

    #[test]
    fn edit_distance_counts_a_swap_once() {
        assert_eq!(edits(b"abcdef", b"abdcef"), 1);
        assert_eq!(edits(b"kitten", b"sitting"), 3);
        assert_eq!(edits(b"abc", b"abcde"), 2);
    }
}
