//! The commands that say why: `explain`, `misses`, `feedback`, `tune`, and what they and the admin listener say to each other.

mod against;
mod explained;
mod feedback;
mod labels;
mod misses;
mod page;
mod request;
mod tune;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) use explained::ExplainAnswer;
pub(crate) use feedback::{FeedbackAnswer, FeedbackRequest, Named, ServedTo};
pub(crate) use labels::{Label, Labels};
pub(crate) use misses::MissesAnswer;
pub(crate) use request::ExplainRequest;
pub(crate) use tune::run as tune;

use crate::cli::{ExplainArguments, FeedbackArguments, MissesArguments, Said};
use crate::operator::Operator;
use crate::purge::PATIENCE as PURGE_PATIENCE;

/// For an answer that takes a look-up or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// `refrain explain`.
///
/// # Errors
/// A file can't be used; Refrain can't be reached, or refuses.
pub(crate) fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::new(&arguments.admin, PATIENCE)?;
    let ask = |file| -> anyhow::Result<ExplainAnswer> {
        let mut request = ExplainRequest::read(file, &arguments.asked, arguments.key.as_deref())?;
        request.show_text |= arguments.show_text;
        operator.post("/explain", &request)
    };
    let first = ask(&arguments.request)?;
    let text = match &arguments.against {
        None if arguments.json => json(&first)?,
        None => page::page(&first),
        Some(file) => {
            let differences = against::differences(&first, &ask(file)?);
            if arguments.json { json(&differences)? } else { against::page(&differences) }
        }
    };
    crate::print(&text)
}

/// `refrain misses`.
///
/// # Errors
/// Refrain can't be reached, or refuses.
pub(crate) fn misses(arguments: &MissesArguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::new(&arguments.admin, PATIENCE)?;
    let mut answer: MissesAnswer = operator.get("/misses")?;
    answer.routes.retain(|route| arguments.route.as_ref().is_none_or(|wanted| *wanted == route.route));
    crate::print(&if arguments.json { json(&answer)? } else { misses::page(&answer) })
}

/// `refrain feedback`.
///
/// # Errors
/// Refrain can't be reached, or refuses.
pub(crate) fn feedback(arguments: &FeedbackArguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::new(&arguments.admin, PURGE_PATIENCE)?;
    let FeedbackArguments { id, key, request, asked, as_key, verdict, yes, .. } = arguments.clone();
    let read = |file: PathBuf| ExplainRequest::read(&file, &asked, as_key.as_deref());
    let request = request.map(read).transpose()?;
    let request = FeedbackRequest { id, key, request, right: verdict == Said::Right, dry_run: !yes };
    let answer: FeedbackAnswer = operator.post("/feedback", &request)?;
    crate::print(&if arguments.json { json(&answer)? } else { feedback::page(&answer) })
}

fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    let mut out = serde_json::to_vec_pretty(value)?;
    out.write_all(b"\n")?;
    Ok(String::from_utf8(out)?)
}
