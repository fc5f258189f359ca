//! `refrain store ls`.

use refrain_cache::{ListedKind, Listing, Row, StoreUpkeep};

use super::{count, watched};
use crate::columns::columns;
use crate::purge::size;

const HEAD: [&str; 6] = ["LAYOUT", "WHAT", "KEYS", "HOLD", "MEMORY", "NOTE"];

/// What is there, as a table.
///
/// # Errors
/// Redis can't be asked.
pub(super) async fn list(upkeep: &StoreUpkeep) -> anyhow::Result<String> {
    let listing = watched(upkeep, upkeep.list()).await?;
    Ok(page(&listing, upkeep.layout(), upkeep.model()))
}

fn page(listing: &Listing, layout: u32, model: Option<&str>) -> String {
    let Listing { rows, foreign } = listing;
    let mut page = String::new();
    if rows.is_empty() {
        page.push_str("nothing stands under this prefix\n");
    } else {
        let head = HEAD.map(str::to_owned).to_vec();
        let rows = rows.iter().map(|row| cells(row, layout, model));
        page = columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    }
    if *foreign > 0 {
        page.push_str(&format!("and {} of others, whose names begin alike\n", count(*foreign, "key")));
    }
    page
}

fn cells(row: &Row, layout: u32, model: Option<&str>) -> Vec<String> {
    let Row { layout: of, kind, detail: _, keys, members, bytes } = row;
    let (what, keys) = match kind {
        ListedKind::Streams => (format!("stream {}", row.detail), String::new()),
        ListedKind::Indexes => (kind.as_str().to_owned(), String::new()),
        _ => (kind.as_str().to_owned(), keys.to_string()),
    };
    let held = members.map(|members| hold(*kind, members)).unwrap_or_default();
    let memory = bytes.map(size).unwrap_or_default();
    vec![of.to_string(), what, keys, held, memory, note(row, layout, model)]
}

fn hold(kind: ListedKind, members: u64) -> String {
    match kind {
        ListedKind::Streams => count(members, "message"),
        ListedKind::Indexes => count(members, "document"),
        _ => count(members, "member"),
    }
}

fn note(row: &Row, layout: u32, model: Option<&str>) -> String {
    let is_of_model = matches!(row.kind, ListedKind::VectorSets | ListedKind::Expiries | ListedKind::Indexes);
    let of_model = match model {
        _ if !is_of_model => String::new(),
        Some(model) if model == row.detail => format!("model {model} (configured)"),
        Some(_) => format!("model {} (another)", row.detail),
        None => format!("model {} (none is configured)", row.detail),
    };
    let of_layout = match row.layout {
        other if other < layout => "an older version's",
        other if other > layout => "a newer version's",
        _ if row.kind == ListedKind::Unknown => "unknown to this version",
        _ => "",
    };
    [of_layout, &of_model].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(layout: u32, kind: ListedKind, detail: &str, members: Option<u64>) -> Row {
        Row { layout, kind, detail: detail.to_owned(), keys: 3, members, bytes: Some(2048) }
    }

    #[test]
    fn a_table_marks_models_and_layouts() {
        let rows = vec![
            row(0, ListedKind::Entries, "", None),
            row(1, ListedKind::Entries, "", None),
            row(1, ListedKind::VectorSets, "aa", Some(7)),
            row(1, ListedKind::VectorSets, "bb", Some(1)),
            row(1, ListedKind::Streams, "purges", Some(2)),
        ];
        let expected = "LAYOUT  WHAT           KEYS  HOLD        MEMORY   NOTE\n\
                        0       entries        3                 2.0 KiB  an older version's\n\
                        1       entries        3                 2.0 KiB\n\
                        1       vector sets    3     7 members   2.0 KiB  model aa (configured)\n\
                        1       vector sets    3     1 member    2.0 KiB  model bb (another)\n\
                        1       stream purges        2 messages  2.0 KiB\n\
                        and 5 keys of others, whose names begin alike\n";
        assert_eq!(page(&Listing { rows, foreign: 5 }, 1, Some("aa")), expected);
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        assert_eq!(page(&Listing::default(), 1, None), "nothing stands under this prefix\n");
    }
}
