//! `refrain purge`: asks a running Refrain to forget answers, and first how many.

mod wire;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::cli::PurgeArguments;
use crate::columns::columns;
use crate::operator::Operator;
pub(crate) use wire::{PurgeAnswer, PurgeRequest, parse_age, parse_key};

/// For the answer: every record of a large store is read, and the admin listener keeps a connection as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Counts, and purges if that is what was said.
///
/// # Errors
/// Refrain can't be reached, or refuses.
pub(crate) fn run(arguments: &PurgeArguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::new(&arguments.admin, PATIENCE)?;
    let answer: PurgeAnswer = operator.post("/purge", &request(arguments))?;
    io::stdout().write_all(page(&answer).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn request(arguments: &PurgeArguments) -> PurgeRequest {
    let PurgeArguments { tag, route, model, tenant, user, key, older_than, everything, soft, yes, admin: _ } =
        arguments.clone();
    let dry_run = !yes;
    PurgeRequest { tag, route, model, tenant, user, key, older_than, everything, soft, dry_run }
}

/// What came of it, for people.
fn page(answer: &PurgeAnswer) -> String {
    let PurgeAnswer { matched, bytes, by_route, dry_run, how } = answer;
    let head = ["ROUTE".to_owned(), "ANSWERS".to_owned()];
    let routes = by_route.iter().map(|(route, count)| [route.clone(), count.to_string()]);
    let total = ["all".to_owned(), format!("{matched}  ({})", size(*bytes))];
    let rows = std::iter::once(head).chain(routes).chain([total]).map(Vec::from).collect::<Vec<_>>();
    format!("{}\n{}\n", columns(&rows), verdict(*matched, *dry_run, how == "soft"))
}

fn verdict(matched: u64, dry_run: bool, soft: bool) -> &'static str {
    match (matched, dry_run, soft) {
        (0, ..) => {
            "Nothing matches. Names are compared as they are written; conditions must be met all together."
        }
        (_, true, false) => "Nothing was removed yet. To remove these, repeat the command with --yes.",
        (_, true, true) => "Nothing has expired yet. To have these expire, repeat the command with --yes.",
        (_, false, false) => "Removed, for good: nobody is served these any more.",
        (_, false, true) => {
            "Expired: served only within the stale windows of their routes, until each is generated again."
        }
    }
}

/// A size for people: `3.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes as f64, 0);
    while amount >= 1024.0 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let places = usize::from(unit > 0);
    format!("{amount:.places$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(by_route: &[(&str, u64)], dry_run: bool, how: &str) -> PurgeAnswer {
        let by_route = by_route.iter().map(|(route, count)| ((*route).to_owned(), *count));
        let by_route: std::collections::BTreeMap<_, _> = by_route.collect();
        let matched = by_route.values().sum();
        PurgeAnswer { matched, bytes: 5_400_000, by_route, dry_run, how: how.to_owned() }
    }

    #[test]
    fn a_dry_run_is_a_table_and_says_how_to_mean_it() {
        let expected = "ROUTE      ANSWERS\n\
                        chat       12\n\
                        summaries  3\n\
                        all        15  (5.1 MiB)\n\n\
                        Nothing was removed yet. To remove these, repeat the command with --yes.\n";
        assert_eq!(page(&answer(&[("chat", 12), ("summaries", 3)], true, "hard")), expected);
    }

    #[test]
    fn what_was_done_is_said() {
        assert!(page(&answer(&[("chat", 1)], false, "hard")).contains("Removed, for good"));
        assert!(page(&answer(&[("chat", 1)], false, "soft")).contains("Expired"));
        assert!(page(&answer(&[], false, "hard")).contains("Nothing matches"));
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!([0, 1023, 1024, 1 << 20].map(size), ["0 B", "1023 B", "1.0 KiB", "1.0 MiB"]);
    }
}
