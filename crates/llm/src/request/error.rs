//! Why a body is refused, and the code to answer with.

use refrain_core::Code;

use crate::json::{self, Kind, Value};

/// Most bytes of a client's field name that an error message repeats.
const NAME_BYTES_MAX: usize = 64;

/// Why a body is refused. Messages are fit for the client: they name fields and types, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not strict JSON, or over a limit of the reader.
    #[error("the body is not valid json: {0}")]
    Json(json::Error),
    /// An object names a field twice.
    #[error("duplicate field {name} at byte {offset}")]
    Duplicate {
        /// The field's name as written, cut if long.
        name: String,
        /// Byte offset of the second one.
        offset: usize,
    },
    /// A field has a type or value that the dialect doesn't allow.
    #[error("field `{path}`: expected {expected}, found {found}")]
    Invalid {
        /// Where it is: `messages[2].role`.
        path: String,
        /// What the dialect allows.
        expected: &'static str,
        /// What stands there.
        found: &'static str,
    },
    /// A field that the dialect needs is absent.
    #[error("field `{path}` is missing: expected {expected}")]
    Missing {
        /// Where it should be.
        path: String,
        /// What the dialect allows.
        expected: &'static str,
    },
}

impl ParseError {
    /// The code to answer with.
    pub fn code(&self) -> Code {
        match self {
            Self::Json(_) => Code::InvalidJson,
            Self::Duplicate { .. } => Code::DuplicateField,
            Self::Invalid { .. } => Code::InvalidField,
            Self::Missing { .. } => Code::MissingField,
        }
    }

    /// The reader's error, with a duplicate's name looked up in the body.
    pub(super) fn of_json(error: json::Error, body: &[u8]) -> Self {
        if error.kind != json::ErrorKind::Duplicate {
            return Self::Json(error);
        }
        let rest = body.get(error.offset..).unwrap_or_default();
        let end = rest.iter().skip(1).position(|byte| *byte == b'"').map_or(rest.len(), |at| at + 2);
        let name = String::from_utf8_lossy(&rest[..end.min(NAME_BYTES_MAX)]).into_owned();
        Self::Duplicate { name, offset: error.offset }
    }
}

/// What a value is, for messages.
pub(super) fn kind_name(value: Value<'_>) -> &'static str {
    match value.kind() {
        Kind::Null => "null",
        Kind::Bool => "a boolean",
        Kind::Number => "a number",
        Kind::PlainString | Kind::EscapedString => "a string",
        Kind::Array => "an array",
        Kind::Object => "an object",
    }
}
