//! Why a source could not be asked, or its answer not be used. No message holds a credential or a part of an answer.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::UpstreamError;

/// Why a look at a source gave no list. What was known before stays.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The API could not be asked.
    #[error("the API could not be asked: {0}")]
    Unreachable(#[from] UpstreamError),
    /// The API does not know the credentials, or they may not list.
    #[error("the API refuses the credentials ({status}): check the key or token, and what it may list")]
    Refused {
        /// 401 or 403.
        status: StatusCode,
    },
    /// The API wants to be asked less often.
    #[error("the API wants to be asked less often (429): raise interval, or lower the number of proxies")]
    TooOften {
        /// When it may be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The API answered with another status than 200.
    #[error("the API answered with status {status}")]
    Status {
        /// Which.
        status: StatusCode,
        /// When it may be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// What was said is not what was expected.
    #[error("the answer can't be used: {0}")]
    Malformed(&'static str),
    /// The name servers gave no answer.
    #[error("no answer from the name servers: {0}")]
    Dns(&'static str),
    /// A file can't be read.
    #[error("can't read {}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The source took too long.
    #[error("no whole list within the time-out")]
    TimedOut,
}

impl DiscoveryError {
    /// The label in metrics and logs.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused { .. } => "refused",
            Self::TooOften { .. } => "too_often",
            Self::Status { .. } => "status",
            Self::Malformed(_) => "malformed",
            Self::Dns(_) => "dns",
            Self::File { .. } => "file",
            Self::TimedOut => "timed_out",
        }
    }

    /// When the source may be asked again, if it said so.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooOften { retry_after } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
