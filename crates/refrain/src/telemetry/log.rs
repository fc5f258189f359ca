//! Log lines on stderr, through a bounded queue that drops lines rather than make a request wait for a terminal.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use refrain_core::settings::{Log, LogFormat};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// Lines that wait for stderr; more are dropped and counted.
const QUEUE_LINES_MAX: usize = 16 * 1024;

/// The storage engine's and ONNX Runtime's news are for their authors. A filter that names them wins over this.
const QUIET: &str = "fjall=warn,lsm_tree=warn,ort=warn";

/// The running log. Dropping it writes what waits.
pub(crate) struct Logs {
    filter: LogFilter,
    dropped: ErrorCounter,
    _guard: WorkerGuard,
}

/// Changes what is logged.
#[derive(Clone)]
pub(crate) struct LogFilter(Option<reload::Handle<EnvFilter, Registry>>);

/// Counts lines that were dropped.
#[derive(Clone)]
pub(crate) struct LinesDropped(Option<ErrorCounter>);

impl Logs {
    /// Starts logging, for the whole process.
    ///
    /// # Errors
    /// The filter can't be read.
    pub(crate) fn start(settings: &Log) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(parse(&settings.filter)?);
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(QUEUE_LINES_MAX)
            .lossy(true)
            .thread_name("refrain-log")
            .finish(io::stderr());
        let dropped = writer.error_counter();
        let lines = match settings.format {
            LogFormat::Text => fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal()).boxed(),
            LogFormat::Json => fmt::layer().with_writer(writer).json().flatten_event(true).boxed(),
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init().context("logging runs already")?;
        Ok(Self { filter: LogFilter(Some(handle)), dropped, _guard: guard })
    }

    /// What changes the filter.
    pub(crate) fn filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// What counts dropped lines.
    pub(crate) fn lines_dropped(&self) -> LinesDropped {
        LinesDropped(Some(self.dropped.clone()))
    }
}

impl LogFilter {
    /// A filter of no log.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self(None)
    }

    /// Filters by these directives from now on.
    pub(crate) fn set(&self, filter: EnvFilter) {
        // It fails only if the log has ended, and then nothing is left to filter.
        if let Some(handle) = &self.0 {
            let _ = handle.reload(filter);
        }
    }
}

impl LinesDropped {
    /// The counter of no log.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self(None)
    }

    /// How many so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |counter| counter.dropped_lines() as u64)
    }
}

/// Reads directives.
///
/// # Errors
/// What is wrong, with an example of what is right.
pub(crate) fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let read = EnvFilter::try_new(filter).with_context(|| {
        format!("log.filter {filter:?} can't be read; use one like \"info,refrain_upstream=debug\"")
    })?;
    if read.max_level_hint().is_some_and(|level| level < LevelFilter::INFO) {
        return Ok(read);
    }
    Ok(EnvFilter::try_new(format!("{QUIET},{filter}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_filter_is_refused_with_an_example() {
        assert!(parse("info,refrain_upstream=debug").is_ok());
        let error = parse("refrain=loud").unwrap_err().to_string();
        assert!(error.contains("log.filter \"refrain=loud\"") && error.contains("use one like"), "{error}");
    }

    #[test]
    fn libraries_below_are_quiet_unless_they_are_named() {
        let check = |filter: &str, expected: &str| {
            let text = parse(filter).unwrap().to_string();
            let mut directives: Vec<&str> = text.split(',').collect();
            directives.sort_unstable();
            assert_eq!(directives.join(","), expected, "{filter}");
        };
        check("info", "fjall=warn,info,lsm_tree=warn,ort=warn");
        check("info,fjall=debug", "fjall=debug,info,lsm_tree=warn,ort=warn");
        check("error", "error");
        check("off", "off");
    }
}
