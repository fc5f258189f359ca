//! `refrain tune`: which threshold keeps enough of a route's semantic hits right, as far as labels can tell.
//!
//! Questions are compared by the real embedder and decided upon by the real decision. One half of the labels chooses the
//! threshold; the other, which had no part in that, says what to expect.

mod choice;
mod data;
mod halves;
mod page;

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use refrain_core::settings::{Route, RouteSemantic};
use refrain_core::{RouteId, Settings};

use crate::cli::TuneArguments;
use crate::origin::Origin;
use choice::{Aim, tuned};
use data::Labelled;
use halves::halved;

/// Proposes a threshold.
///
/// # Errors
/// The labels, the config or the embedder can't be used.
pub(crate) fn run(arguments: &TuneArguments) -> anyhow::Result<ExitCode> {
    let TuneArguments { labels, log, config, route, precision, confidence, alike, json, .. } = arguments;
    let settings = match config {
        Some(file) => Some(Origin::file(file.clone()).load()?.settings),
        None => None,
    };
    let chosen = settings.as_ref().map(|settings| semantic_route(settings, route.as_deref())).transpose();
    // A log says itself which route it is of.
    let chosen = if log.is_some() && route.is_none() { chosen.unwrap_or_default() } else { chosen? };
    let route = route.clone().or_else(|| chosen.as_ref().map(|(id, _)| id.as_str().to_owned()));
    let labelled: Labelled = match (labels, log, &settings) {
        (Some(file), _, Some(settings)) => {
            let semantic = chosen.as_ref().map(|(_, semantic)| semantic.clone()).unwrap_or_default();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(data::of_pairs(file, settings, &semantic))?
        }
        (_, Some(file), _) => data::of_log(file, route.as_deref(), *alike)?,
        _ => bail!("--labels needs --config, for the embedder"),
    };
    if labelled.said.is_empty() {
        bail!("there is no label in it");
    }
    let Labelled { said, unsure, is_by_people } = labelled;
    let tuned = tuned(&halved(said), Aim { precision: *precision, confidence: *confidence });
    let named = match (&chosen, &route) {
        (Some((id, semantic)), _) => Some((id.as_str(), Some(semantic))),
        (None, Some(name)) => Some((name.as_str(), None)),
        (None, None) => None,
    };
    crate::print(&if *json {
        super::json(&tuned)?
    } else {
        page::page(&tuned, named) + &page::remarks(&tuned, (unsure, is_by_people))
    })?;
    Ok(if tuned.proposed.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The route that is meant, and its semantic tier; defaults if it has none yet.
fn semantic_route(settings: &Settings, named: Option<&str>) -> anyhow::Result<(RouteId, RouteSemantic)> {
    let of = |route: &Route| (route.id.clone(), route.cache.semantic.clone().unwrap_or_default());
    if let Some(name) = named {
        let found = settings.routes.iter().find(|route| route.id.as_str() == name);
        return found.map(|route| of(route)).with_context(|| format!("the config has no route {name:?}"));
    }
    let mut semantic = settings.routes.iter().filter(|route| route.cache.semantic.is_some());
    match (semantic.next(), semantic.next(), settings.routes.as_slice()) {
        (Some(only), None, _) | (None, None, [only]) => Ok(of(only)),
        _ => bail!("say which route is meant: --route NAME"),
    }
}
