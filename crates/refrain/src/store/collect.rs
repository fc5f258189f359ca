//! `refrain store gc`.

use anyhow::bail;
use refrain_cache::{Collect, Collected, Layouts, Models, StoreUpkeep};

use super::{count, ending, mode, watched};
use crate::cli::CollectStoreArguments;

/// Removes what leads nowhere, or counts it.
///
/// # Errors
/// Redis can't be asked, or no model is configured that others could be told from.
pub(super) async fn collect(
    upkeep: &StoreUpkeep,
    arguments: &CollectStoreArguments,
) -> anyhow::Result<String> {
    let CollectStoreArguments { models, keep, layouts, yes, config: _ } = arguments;
    let models = match (models, upkeep.model()) {
        (false, _) => Models::Keep,
        (true, None) if keep.is_empty() => {
            bail!(
                "--models: this file has no embedder, so that every model would be another; name those to --keep"
            )
        }
        (true, own) => Models::OnlyKeep(own.map(str::to_owned).into_iter().chain(keep.clone()).collect()),
    };
    let layouts = if *layouts { Layouts::RemoveOlder } else { Layouts::Keep };
    let collect = Collect { mode: mode(*yes), models, layouts };
    let collected = watched(upkeep, upkeep.collect(&collect)).await?;
    Ok(page(&collected, &collect, *yes))
}

fn page(collected: &Collected, collect: &Collect, yes: bool) -> String {
    let Collected { members, expiries, sets, indexes, layouts, other_layouts, other_models } = collected;
    let mut lines = Vec::new();
    let mut total = 0;
    let mut say = |number: u64, what: String| {
        total += number;
        if number > 0 {
            lines.push(what);
        }
    };
    say(*members, format!("{} without an entry", count(*members, "vector")));
    say(*expiries, format!("{} without a vector set", count(*expiries, "expiry set")));
    for (model, number) in sets {
        say(*number, format!("{} of model {model}", count(*number, "vector set")));
    }
    for index in indexes {
        say(1, format!("query index {index}"));
    }
    for (layout, number) in layouts {
        say(*number, format!("{} of layout {layout}", count(*number, "key")));
    }
    if *other_models > 0 && collect.models == Models::Keep {
        lines.push(format!("{} of other models left alone: --models", count(*other_models, "vector set")));
    }
    if *other_layouts > 0 {
        let hint = if collect.layouts == Layouts::Keep {
            ": --layouts removes older ones"
        } else {
            ", newer than this version"
        };
        lines.push(format!("{} of other layouts left alone{hint}", count(*other_layouts, "key")));
    }
    lines.push(ending(total, yes).to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use refrain_cache::UpkeepMode;

    use super::*;

    const LOOK: Collect = Collect { mode: UpkeepMode::DryRun, models: Models::Keep, layouts: Layouts::Keep };

    #[test]
    fn what_was_found_is_said_with_what_stays() {
        let collected = Collected { members: 2, other_models: 1, other_layouts: 4, ..Collected::default() };
        let expected = "2 vectors without an entry\n\
                        1 vector set of other models left alone: --models\n\
                        4 keys of other layouts left alone: --layouts removes older ones\n\
                        Nothing was removed yet. To remove this, repeat the command with --yes.\n";
        assert_eq!(page(&collected, &LOOK, false), expected);
    }

    #[test]
    fn nothing_found_is_no_invitation() {
        assert_eq!(page(&Collected::default(), &LOOK, false), "Nothing to remove.\n");
    }
}
