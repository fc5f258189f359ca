//! What a policy is called for, and how a call fails.

use refrain_core::Bypass;
use wasmtime::{Error, Trap, WasmBacktrace};

/// What a policy is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Configure,
    OnRequest,
    OnCandidates,
    OnResponse,
}

impl Hook {
    pub(crate) const ALL: [Self; 4] =
        [Self::Configure, Self::OnRequest, Self::OnCandidates, Self::OnResponse];

    /// The name in logs and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::OnRequest => "on_request",
            Self::OnCandidates => "on_candidates",
            Self::OnResponse => "on_response",
        }
    }
}

/// A call that failed: the reason for metrics, the message for the log.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Bypass,
    pub(crate) message: String,
    /// Where in the guest; empty if it isn't known.
    pub(crate) backtrace: String,
}

/// Frames of a guest's backtrace that are logged.
const FRAMES_MAX: usize = 16;
/// Of a message, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

impl Failure {
    pub(crate) fn new(reason: Bypass, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), backtrace: String::new() }
    }

    /// What an error of the engine means. `out_of_memory`: the instance was refused memory during this call.
    pub(crate) fn of(error: &Error, out_of_memory: bool) -> Self {
        let trap = error.downcast_ref::<Trap>().copied();
        let reason = match trap {
            Some(Trap::Interrupt) => Bypass::PolicyTimedOut,
            _ if out_of_memory => Bypass::PolicyOutOfMemory,
            Some(trap) if breaks_abi(trap) => Bypass::PolicyInvalid,
            Some(_) => Bypass::PolicyTrapped,
            None if error.is::<wasmtime::PoolConcurrencyLimitError>() => Bypass::PolicyBusy,
            None if error.downcast_ref::<WasmBacktrace>().is_some() => Bypass::PolicyTrapped,
            None => Bypass::PolicyInvalid,
        };
        let mut message = error.root_cause().to_string();
        cut(&mut message, MESSAGE_BYTES_MAX);
        Self { reason, message, backtrace: backtrace(error) }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        match self.backtrace.as_str() {
            "" => Ok(()),
            frames => write!(f, " (in {frames})"),
        }
    }
}

/// Cuts a text at a character boundary.
pub(crate) fn cut(text: &mut String, bytes_max: usize) {
    text.truncate(text.floor_char_boundary(bytes_max));
}

/// Traps that the engine raises when a guest's value is none.
fn breaks_abi(trap: Trap) -> bool {
    matches!(
        trap,
        Trap::StringOutOfBounds
            | Trap::ListOutOfBounds
            | Trap::InvalidDiscriminant
            | Trap::UnalignedPointer
            | Trap::InvalidChar
    )
}

fn backtrace(error: &Error) -> String {
    let Some(trace) = error.downcast_ref::<WasmBacktrace>() else {
        return String::new();
    };
    let frames = trace.frames().iter().take(FRAMES_MAX).map(|frame| match frame.func_name() {
        Some(name) => name.to_owned(),
        None => format!("function {}", frame.func_index()),
    });
    let mut text = frames.collect::<Vec<_>>().join(" < ");
    cut(&mut text, 4 * MESSAGE_BYTES_MAX);
    text
}
