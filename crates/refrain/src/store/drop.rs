//! `refrain store drop`.

use refrain_cache::{Dropped, StoreUpkeep};

use super::{count, ending, mode, watched};
use crate::cli::DropStoreArguments;

/// Removes everything, or counts it.
///
/// # Errors
/// Redis can't be asked.
pub(super) async fn drop(upkeep: &StoreUpkeep, arguments: &DropStoreArguments) -> anyhow::Result<String> {
    let DropStoreArguments { layout, yes, config: _ } = arguments;
    let dropped = watched(upkeep, upkeep.drop_all(*layout, mode(*yes))).await?;
    Ok(page(&dropped, *yes))
}

fn page(dropped: &Dropped, yes: bool) -> String {
    let Dropped { keys, indexes, other_layouts, foreign } = dropped;
    let mut lines: Vec<String> =
        keys.iter().map(|(layout, number)| format!("{} of layout {layout}", count(*number, "key"))).collect();
    lines.extend(indexes.iter().map(|index| format!("query index {index}")));
    if *other_layouts > 0 {
        lines.push(format!("{} of other layouts left alone", count(*other_layouts, "key")));
    }
    if *foreign > 0 {
        lines.push(format!(
            "{} left alone that are of others, though their names begin alike",
            count(*foreign, "key")
        ));
    }
    lines.push(ending(keys.values().sum::<u64>() + indexes.len() as u64, yes).to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_and_what_stays_is_said() {
        let dropped = Dropped {
            keys: [(0, 1), (1, 12)].into(),
            indexes: vec!["refrain:1:i:aa".to_owned()],
            other_layouts: 0,
            foreign: 2,
        };
        let expected = "1 key of layout 0\n12 keys of layout 1\nquery index refrain:1:i:aa\n\
                        2 keys left alone that are of others, though their names begin alike\nRemoved.\n";
        assert_eq!(page(&dropped, true), expected);
    }
}
