//! `refrain upstreams`: how the pools of a running Refrain do, and which endpoints get no new requests.

mod table;
mod wire;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::cli::{EndpointName, UpstreamsArguments, UpstreamsCommand};
use crate::operator::Operator;
pub(crate) use wire::{
    DrainAnswer, DrainRequest, EndpointReport, ErrorReport, PoolReport, QueueReport, ScalingOfPool,
    ScalingReport, SourceReport, UpstreamsReport,
};

/// Nothing is computed for these answers.
const PATIENCE: Duration = Duration::from_secs(15);

/// Shows the pools, or changes which endpoints are asked.
///
/// # Errors
/// Refrain can't be reached, or knows no such endpoint.
pub(crate) fn run(arguments: &UpstreamsArguments) -> anyhow::Result<ExitCode> {
    let operator = Operator::new(&arguments.admin, PATIENCE)?;
    let shown = |report: &UpstreamsReport| table::page(report);
    match &arguments.command {
        None => print(&operator.get("/upstreams")?, arguments.json, shown),
        Some(UpstreamsCommand::Drain(which)) => {
            let answer = operator.post("/upstreams/drain", &request(&which.endpoint))?;
            print(&answer, arguments.json, drained)
        }
        Some(UpstreamsCommand::Undrain(which)) => {
            let answer = operator.post("/upstreams/undrain", &request(&which.endpoint))?;
            print(&answer, arguments.json, undrained)
        }
    }
}

fn request(EndpointName { pool, endpoint }: &EndpointName) -> DrainRequest {
    DrainRequest { pool: pool.clone(), endpoint: endpoint.clone() }
}

fn print<T: Serialize>(answer: &T, json: bool, show: impl Fn(&T) -> String) -> anyhow::Result<ExitCode> {
    let text = if json { serde_json::to_string_pretty(answer)? + "\n" } else { show(answer) };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn drained(answer: &DrainAnswer) -> String {
    let DrainAnswer { pool, endpoint, in_flight, in_service, .. } = answer;
    let left = match in_flight {
        0 => "It answers nothing any more: it can be stopped.".to_owned(),
        count => format!("It still answers {count}: `refrain upstreams` shows when none is left."),
    };
    let rest = match in_service {
        0 => format!("\nNO endpoint of {pool} is in service now: its requests fail."),
        _ => String::new(),
    };
    format!("{pool}/{endpoint} gets no new requests from this proxy. {left}{rest}\n")
}

fn undrained(answer: &DrainAnswer) -> String {
    let DrainAnswer { pool, endpoint, state, .. } = answer;
    format!("{pool}/{endpoint} is {state}.\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(in_flight: u32, in_service: usize) -> DrainAnswer {
        let (pool, endpoint, state) = ("gpu".to_owned(), "a".to_owned(), "draining".to_owned());
        DrainAnswer { pool, endpoint, state, in_flight, in_service }
    }

    #[test]
    fn fleet_drain_says_what_is_left_to_do() {
        assert!(drained(&answer(0, 1)).contains("can be stopped") && !drained(&answer(0, 1)).contains("NO"));
        assert!(drained(&answer(3, 1)).contains("still answers 3"));
        assert!(drained(&answer(0, 0)).contains("NO endpoint of gpu"));
    }
}
