use proptest::prelude::*;
use refrain_core::Veto;

use super::*;

fn vetoes(a: &str, b: &str) -> Vec<Veto> {
    let lexical = compare(a, b);
    Veto::ALL.into_iter().filter(|veto| lexical.speaks_for(*veto)).collect()
}

/// Each pair asks two things, and `veto` is among what says so.
fn differs(veto: Veto, pairs: &[(&str, &str)]) {
    for (a, b) in pairs {
        let found = vetoes(a, b);
        assert!(found.contains(&veto), "{a} | {b}: {found:?}");
        assert_eq!(found, vetoes(b, a), "{a} | {b}");
    }
}

/// Each pair asks one thing, and nothing says otherwise.
fn agrees(pairs: &[(&str, &str)]) {
    for (a, b) in pairs {
        assert_eq!(vetoes(a, b), [], "{a} | {b}");
        assert_eq!(vetoes(b, a), [], "{b} | {a}");
    }
}

#[test]
fn numbers_that_differ_are_seen() {
    differs(
        Veto::Number,
        &[
            ("convert 10 miles to km", "convert 20 miles to km"),
            ("list ten fruits", "list twelve fruits"),
            ("what is 3.10 of the interpreter", "what is 3.1 of the interpreter"),
            ("is 1,000 enough", "is 1,500 enough"),
            ("the top five songs", "the top songs"),
            ("chapter 3 summary", "chapter 4 summary"),
            ("who finished third", "who finished fourth"),
            ("count from 3 to 5", "count from 5 to 3"),
            ("drill for a 1/4 inch anchor", "drill for a 3/8 inch anchor"),
            ("book a table at 7:30", "book a table at 8:30"),
            ("is -5 cold", "is 5 cold"),
            ("two hundred grams", "three hundred grams"),
        ],
    );
}

#[test]
fn numbers_written_otherwise_are_one() {
    agrees(&[
        ("is 1,000 steps enough", "is 1000 steps enough"),
        ("is 10k followers a lot", "are 10,000 followers a lot"),
        ("list five fruits", "list 5 fruits"),
        ("is twenty five old", "is 25 old"),
        ("what is 5 million divided by two", "what is 5,000,000 divided by 2"),
        ("who came 3rd", "who came third"),
        ("explain oauth 2.0", "explain oauth 2"),
        ("a table for 2 at 7", "a table at 7 for two"),
        ("which one is better", "which is better"),
    ]);
}

#[test]
fn negations_and_opposites_are_seen() {
    differs(
        Veto::Negation,
        &[
            ("turn on dark mode", "turn off dark mode"),
            ("turn dark mode on", "turn dark mode off"),
            ("should I use a mutex", "shouldn't I use a mutex"),
            ("coffee with sugar", "coffee without sugar"),
            ("is the deposit refundable", "is the deposit non-refundable"),
            ("is it tax deductible", "is it not tax deductible"),
            ("how do I enable the firewall", "how do I disable the firewall"),
            ("how do I lock a file", "how do I unlock a file"),
            ("how to install the app", "how to uninstall the app"),
            ("is the museum open today", "is the museum closed today"),
            ("what happens before checkout", "what happens after checkout"),
            ("increasing the limit", "decreasing the limit"),
            ("should I buy shares now", "should I sell shares now"),
            ("the minimum speed", "the maximum speed"),
            ("first episode", "last episode"),
            ("allow port forwarding", "block port forwarding"),
            ("make it more salty", "make it less salty"),
            ("is this mushroom harmful", "is this mushroom harmless"),
            ("is it legal to fish here", "is it illegal to fish here"),
            ("sort ascending", "sort descending"),
        ],
    );
}

#[test]
fn phrasings_of_one_polarity_agree() {
    agrees(&[
        ("How do I enable 2FA?", "How can I turn on 2FA?"),
        ("How do I turn off notifications?", "How can I disable notifications?"),
        ("I don't know how to reset my password", "how to reset my password"),
        ("why can't I log in", "why am I unable to log in"),
        ("Why won't my build finish?", "why does my build not finish"),
        ("can I cancel or not", "can I cancel"),
        ("the shop isn't open", "the shop is not open"),
    ]);
}

#[test]
fn other_names_are_seen() {
    differs(
        Veto::Name,
        &[
            ("whats the capital of australia", "whats the capital of austria"),
            ("Send the invoice to Sarah", "Send the invoice to Tom"),
            ("how do i sort a list in python", "how do i sort a list in ruby"),
            ("what does foo_bar return", "what does foo_baz return"),
            ("open /etc/hosts", "open /etc/passwd"),
            ("what does git reset --hard do", "what does git reset --soft do"),
            ("48 * 12", "48 + 12"),
            ("difference of a == b", "difference of a === b"),
            ("weather in New York", "weather in New Orleans"),
            ("how do I replace a boiler", "how do I replace a radiator"),
            ("is Acme reliable", "is Globex reliable"),
            ("tuition fees in scotland", "tuition fees"),
            ("my account balance", "my joint account balance"),
        ],
    );
}

#[test]
fn the_same_names_in_swapped_places_are_seen() {
    differs(
        Veto::Name,
        &[
            ("flight from paris to london", "flight from london to paris"),
            ("convert a dict to a string", "convert a string to a dict"),
            ("is tea better than coffee", "is coffee better than tea"),
            ("use butter instead of oil", "use oil instead of butter"),
            ("do citizens of Norway need a visa for Canada", "do citizens of Canada need a visa for Norway"),
            ("1000 gbp in eur", "1000 eur in gbp"),
            ("did Smith beat Jones", "did Jones beat Smith"),
            ("migrate from mysql to postgres", "migrate from postgres to mysql"),
        ],
    );
}

#[test]
fn the_same_names_otherwise_said_agree() {
    agrees(&[
        ("What's the capital of France?", "Can you tell me the capital city of France?"),
        ("How do I sort a list in JavaScript?", "how do i sort a list in js"),
        ("difference between TCP and UDP", "what is the difference between UDP and TCP?"),
        ("In a spreadsheet, how do I merge two cells?", "How do I merge two cells in a spreadsheet?"),
        ("flights from london to new york", "fligths form London to NYC"),
        ("how do I install postgres on a mac", "How do I install PostgreSQL on macOS?"),
        ("What is the population of the USA?", "what's the population of the united states"),
        ("What does the warranty cover?", "What does the guarantee cover?"),
        ("HOW DO I RESET MY PASSWORD", "how do i reset my password"),
    ]);
}

#[test]
fn other_dates_are_seen() {
    differs(
        Veto::Date,
        &[
            ("my bill in January", "my bill in June"),
            ("is it open on Sunday", "is it open on Monday"),
            ("weather today", "weather tomorrow"),
            ("events in 2024", "events in 2025"),
            ("open in May", "open in August"),
            ("sales last month", "sales this month"),
            ("tax rules", "tax rules in 2019"),
            ("is breakfast at 7am", "is breakfast at 7pm"),
            ("paid weekly", "paid monthly"),
        ],
    );
}

#[test]
fn the_same_dates_otherwise_said_agree() {
    agrees(&[
        ("open on sundays", "open on Sunday?"),
        ("what was my bill in jan", "what was my bill in January"),
        ("may I bring a dog", "can I bring a dog"),
        ("is it raining today", "is it raining now"),
        ("what is on tonight", "what is on this evening"),
    ]);
}

#[test]
fn other_units_are_seen() {
    differs(
        Veto::Unit,
        &[
            ("convert 50 km to miles", "convert 50 km to meters"),
            ("how much is 90 kg in pounds", "how much is 90 kg in ounces"),
            ("price in usd", "price in eur"),
            ("is $50 enough", "is €50 enough"),
            ("bake at 180C", "bake at 180F"),
            ("5 mg of it", "5 mcg of it"),
        ],
    );
}

#[test]
fn the_same_units_otherwise_said_agree() {
    agrees(&[
        ("is 50 kilometres far", "is 50 km far"),
        ("is $50 enough", "is 50 dollars enough"),
        ("send £50", "send fifty pounds"),
        ("is 10% a lot", "is 10 percent a lot"),
        ("run 5 miles a day", "run five miles a day"),
    ]);
}

#[test]
fn other_languages_do_no_harm() {
    agrees(&[
        ("Wie setze ich mein Passwort zurück?", "wie setze ich mein passwort zurück"),
        ("パスワードをリセットする方法は？", "パスワードをリセットする方法は"),
        ("¿Cómo cambio mi contraseña?", "cómo cambio mi contraseña"),
        ("как сбросить пароль", "Как сбросить пароль?"),
    ]);
    differs(Veto::Number, &[("Wie weit sind 10 Schritte?", "Wie weit sind 20 Schritte?")]);
}

#[test]
fn overlap_and_length_are_measured() {
    let same = compare("open the door", "Open the door!");
    assert_eq!((same.jaccard, same.bigram_jaccard, same.length_ratio), (1.0, 1.0, 1.0));
    let other = compare("open the door", "read a long book now");
    assert_eq!((other.jaccard, other.bigram_jaccard, other.length_ratio), (0.0, 0.0, 0.6));
    assert_eq!(compare("", "").jaccard, 1.0);
    assert_eq!(compare("", "word").length_ratio, 0.0);
}

/// Words and marks that the rules look at, so that random texts meet them.
const PIECES: [&str; 40] = [
    "on", "off", "turn", "not", "n't", "don't", "never", "from", "to", "Paris", "london", "10", "1,000",
    "3.5", "10k", "50mm", "$80", "80%", "twenty", "five", "hundred", "million", "second", "the", "May",
    "2024", "today", "last", "week", "foo_bar", "a/b", "C++", "==", "-5", "--x", "I'm", "…", "é", "パ", ".",
];

fn text() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![8 => prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn mismatches_are_symmetric(a in text(), b in text()) {
        prop_assert_eq!(vetoes(&a, &b), vetoes(&b, &a));
    }

    #[test]
    fn a_text_never_differs_from_itself(a in text()) {
        prop_assert_eq!(vetoes(&a, &a), []);
    }

    #[test]
    fn any_text_can_be_compared(a in ".{0,80}", b in "\\PC{0,80}") {
        let lexical = compare(&a, &b);
        for share in [lexical.jaccard, lexical.bigram_jaccard, lexical.length_ratio] {
            prop_assert!((0.0..=1.0).contains(&share));
        }
        prop_assert_eq!(vetoes(&a, &a), []);
        prop_assert_eq!(vetoes(&a, &b), vetoes(&b, &a));
    }
}
