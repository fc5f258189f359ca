//! Why Redis did not do what it was asked: what metrics count and operators read. Never holds a password or a prompt.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// No connection: refused, unreachable, unknown name.
    Unreachable,
    /// No answer within the deadline.
    TimedOut,
    /// The connection broke.
    Broken,
    /// Wrong user or password, or none where one is asked for.
    Login,
    /// The user may not run a command, or not on these keys.
    Forbidden,
    /// TLS: not trusted, wrong name, no certificate of ours.
    Tls,
    /// The server has no memory left.
    OutOfMemory,
    /// A replica that can't be written.
    ReadOnly,
    /// The cluster has no server for the key's slot.
    ClusterDown,
    /// The server is loading its data.
    Loading,
    /// Another secret wrote what is there.
    Secret,
    /// What is asked for in config isn't there: a command, a module.
    Unsupported,
    /// A connection is being opened, and who asked did not wait for it.
    Connecting,
    /// Anything else that the server refused.
    Refused,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Unreachable,
        Self::TimedOut,
        Self::Broken,
        Self::Login,
        Self::Forbidden,
        Self::Tls,
        Self::OutOfMemory,
        Self::ReadOnly,
        Self::ClusterDown,
        Self::Loading,
        Self::Secret,
        Self::Unsupported,
        Self::Connecting,
        Self::Refused,
    ];

    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Broken => "broken",
            Self::Login => "login",
            Self::Forbidden => "forbidden",
            Self::Tls => "tls",
            Self::OutOfMemory => "out_of_memory",
            Self::ReadOnly => "read_only",
            Self::ClusterDown => "cluster_down",
            Self::Loading => "loading",
            Self::Secret => "secret",
            Self::Unsupported => "unsupported",
            Self::Connecting => "connecting",
            Self::Refused => "refused",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => "is the server up, and are host and port of store.redis.url right?",
            Self::TimedOut => "the server or the network is slow; see SLOWLOG, or raise store.redis.timeout",
            Self::Broken => "the connection was closed: see the server's log and its maxclients",
            Self::Login => "check user and password of store.redis",
            Self::Forbidden => "give the user the commands and keys that docs/operations.md lists (ACL)",
            Self::Tls => "check store.redis.tls: ca_file, server_name, client_certificate",
            Self::OutOfMemory => "raise the server's maxmemory, or set maxmemory-policy to volatile-lru",
            Self::ReadOnly => "it is a replica: give the master's address",
            Self::ClusterDown => "see `CLUSTER INFO`: some slots have no server",
            Self::Loading => "the server is loading its data; wait",
            Self::Secret => {
                "give every proxy the same store.secret_file, or this one another store.redis.prefix"
            }
            Self::Unsupported => "set store.redis.vectors to what the server can do, or to \"auto\"",
            Self::Connecting => "nothing: the next request finds it open",
            Self::Refused => "see the server's log",
        }
    }

    /// Whether the server may be asked for other things: it answered, and only this was in its way.
    pub(super) fn is_of_one_command(self) -> bool {
        matches!(
            self,
            Self::Connecting
                | Self::OutOfMemory
                | Self::ReadOnly
                | Self::ClusterDown
                | Self::Forbidden
                | Self::Refused
        )
    }
}

/// Trouble with what the server or the system said about it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {message}; {}", trouble.as_str(), trouble.advice())]
pub struct StoreTrouble {
    /// Its kind.
    pub trouble: Trouble,
    /// The server's or the system's words.
    pub message: String,
}

impl StoreTrouble {
    pub(super) fn new(trouble: Trouble, message: impl Into<String>) -> Self {
        Self { trouble, message: message.into() }
    }

    pub(super) fn timed_out() -> Self {
        Self::new(Trouble::TimedOut, "no answer within the deadline")
    }
}

impl From<RedisError> for StoreTrouble {
    fn from(error: RedisError) -> Self {
        Self::new(trouble_of(&error), error.to_string())
    }
}

fn trouble_of(error: &RedisError) -> Trouble {
    match error.kind() {
        ErrorKind::AuthenticationFailed => Trouble::Login,
        ErrorKind::Server(kind) => of_server(kind, error),
        ErrorKind::Extension => of_code(error.code()),
        ErrorKind::ClusterConnectionNotFound => Trouble::ClusterDown,
        ErrorKind::InvalidClientConfig => Trouble::Tls,
        _ if error.is_timeout() => Trouble::TimedOut,
        ErrorKind::Io => of_io(error),
        _ if error.is_connection_dropped() => Trouble::Broken,
        _ => Trouble::Refused,
    }
}

fn of_server(kind: ServerErrorKind, error: &RedisError) -> Trouble {
    match kind {
        ServerErrorKind::BusyLoading => Trouble::Loading,
        ServerErrorKind::ClusterDown
        | ServerErrorKind::MasterDown
        | ServerErrorKind::Moved
        | ServerErrorKind::Ask
        | ServerErrorKind::TryAgain => Trouble::ClusterDown,
        ServerErrorKind::ReadOnly => Trouble::ReadOnly,
        ServerErrorKind::NoPerm => Trouble::Forbidden,
        // Redis 7.0 has no code for what a script may not do.
        _ if error.to_string().contains("The user executing the script") => Trouble::Forbidden,
        _ => of_code(error.code()),
    }
}

fn of_code(code: Option<&str>) -> Trouble {
    match code {
        Some("OOM") => Trouble::OutOfMemory,
        Some("NOAUTH" | "WRONGPASS") => Trouble::Login,
        Some("MISCONF") => Trouble::ReadOnly,
        _ => Trouble::Refused,
    }
}

fn of_io(error: &RedisError) -> Trouble {
    let text = error.to_string();
    // rustls' errors come wrapped as I/O errors without a kind of their own.
    if ["certificate", "Certificate", "TLS", "tls", "HandshakeFailure"].iter().any(|word| text.contains(word))
    {
        return Trouble::Tls;
    }
    // A refusal counts as dropped too, for the client.
    let is_lost = error.is_connection_dropped() && !error.is_connection_refusal();
    if is_lost { Trouble::Broken } else { Trouble::Unreachable }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_refused_connection_is_no_broken_one() {
        let trouble =
            |kind: io::ErrorKind| StoreTrouble::from(RedisError::from(io::Error::from(kind))).trouble;
        assert_eq!(trouble(io::ErrorKind::ConnectionRefused), Trouble::Unreachable);
        assert_eq!(trouble(io::ErrorKind::ConnectionReset), Trouble::Broken);
        assert_eq!(trouble(io::ErrorKind::UnexpectedEof), Trouble::Broken);
        assert_eq!(trouble(io::ErrorKind::TimedOut), Trouble::TimedOut);
    }
}
