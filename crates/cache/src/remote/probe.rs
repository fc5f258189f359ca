//! What the server can do, asked at start and after each reconnect, and never assumed.

use redis::{Value, cmd};
use refrain_core::settings::VectorSearch;

use super::link::Link;
use super::trouble::{StoreTrouble, Trouble};

/// Where vectors are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorMode {
    /// There is no embedder, and so no vector.
    None,
    /// In the server, by its query engine (`FT.SEARCH`).
    QueryEngine,
    /// In the server, by vector sets (`VSIM`).
    VectorSets,
    /// In each process.
    Local,
}

impl VectorMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::QueryEngine, Self::VectorSets, Self::Local];

    /// As config, logs and the readiness report call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::QueryEngine => "query-engine",
            Self::VectorSets => "vector-sets",
            Self::Local => "local",
        }
    }
}

/// The mode, and why it is that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorChoice {
    /// The mode.
    pub mode: VectorMode,
    /// Why, for operators.
    pub why: &'static str,
}

/// Commands that the server knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Abilities {
    query_engine: bool,
    vector_sets: bool,
}

/// Chooses how vectors are searched.
///
/// # Errors
/// Config wants what the server can't do, or the server can't be asked.
pub(super) async fn choose(link: &Link, wanted: VectorSearch) -> Result<VectorChoice, StoreTrouble> {
    choice(abilities(link).await?, wanted, link.is_cluster()).inspect_err(|trouble| link.count(trouble))
}

fn choice(can: Abilities, wanted: VectorSearch, is_cluster: bool) -> Result<VectorChoice, StoreTrouble> {
    let engine = can.query_engine && !is_cluster;
    let of = |mode, why| Ok(VectorChoice { mode, why });
    let lacks = |what| Err(StoreTrouble::new(Trouble::Unsupported, what));
    match wanted {
        VectorSearch::Auto if engine => {
            of(VectorMode::QueryEngine, "the server has a query engine (FT.SEARCH)")
        }
        VectorSearch::Auto if can.vector_sets && can.query_engine => of(
            VectorMode::VectorSets,
            "the server has vector sets; in a cluster its query engine searches one server only",
        ),
        VectorSearch::Auto if can.vector_sets => {
            of(VectorMode::VectorSets, "the server has vector sets (VSIM)")
        }
        VectorSearch::Auto => of(VectorMode::Local, "the server has neither FT.SEARCH nor VSIM"),
        VectorSearch::QueryEngine if engine => of(VectorMode::QueryEngine, "config says so"),
        VectorSearch::QueryEngine if can.query_engine => {
            lacks("in a cluster, the query engine searches one server only")
        }
        VectorSearch::QueryEngine => lacks("the server has no query engine (FT.SEARCH)"),
        VectorSearch::VectorSets if can.vector_sets => of(VectorMode::VectorSets, "config says so"),
        VectorSearch::VectorSets => lacks("the server has no vector sets (VSIM)"),
        VectorSearch::Local => of(VectorMode::Local, "config says so"),
    }
}

async fn abilities(link: &Link) -> Result<Abilities, StoreTrouble> {
    // An answer a command: nothing for one that the server doesn't know.
    let known: Result<Vec<Value>, _> =
        link.ask(cmd("COMMAND").arg("INFO").arg("FT.SEARCH").arg("VSIM")).await;
    match known {
        Ok(known) => {
            let has = |index: usize| matches!(known.get(index), Some(Value::Array(info)) if !info.is_empty());
            Ok(Abilities { query_engine: has(0), vector_sets: has(1) })
        }
        // A server or a user that doesn't tell: what needs no more than plain commands always works.
        Err(trouble) if trouble.trouble.is_of_one_command() => Ok(Abilities::default()),
        Err(trouble) => Err(trouble),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Abilities = Abilities { query_engine: true, vector_sets: true };
    const SETS: Abilities = Abilities { query_engine: false, vector_sets: true };
    const NEITHER: Abilities = Abilities { query_engine: false, vector_sets: false };

    fn mode(can: Abilities, wanted: VectorSearch, is_cluster: bool) -> Option<VectorMode> {
        choice(can, wanted, is_cluster).ok().map(|choice| choice.mode)
    }

    #[test]
    fn the_server_searches_where_it_can() {
        assert_eq!(mode(BOTH, VectorSearch::Auto, false), Some(VectorMode::QueryEngine));
        assert_eq!(mode(SETS, VectorSearch::Auto, false), Some(VectorMode::VectorSets));
        assert_eq!(mode(NEITHER, VectorSearch::Auto, false), Some(VectorMode::Local));
        assert_eq!(mode(BOTH, VectorSearch::Local, false), Some(VectorMode::Local));
    }

    #[test]
    fn a_cluster_never_uses_a_search_that_sees_one_server_only() {
        assert_eq!(mode(BOTH, VectorSearch::Auto, true), Some(VectorMode::VectorSets));
        let engine_alone = Abilities { query_engine: true, vector_sets: false };
        assert_eq!(mode(engine_alone, VectorSearch::Auto, true), Some(VectorMode::Local));
        assert_eq!(mode(BOTH, VectorSearch::QueryEngine, true), None);
    }

    #[test]
    fn what_config_wants_and_the_server_lacks_is_refused() {
        assert_eq!(mode(NEITHER, VectorSearch::QueryEngine, false), None);
        assert_eq!(mode(NEITHER, VectorSearch::VectorSets, false), None);
        let error = choice(NEITHER, VectorSearch::VectorSets, false).unwrap_err();
        assert!(
            error.to_string().contains("VSIM") && error.to_string().contains("store.redis.vectors"),
            "{error}"
        );
    }
}
