//! What a Redis server answers, in RESP2 or RESP3.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>. Kinds that tests need not tell apart are one.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// A server that announces more is broken.
const BYTES_MAX: usize = 64 << 20;
const ITEMS_MAX: usize = 1 << 20;
const LINE_END: &[u8] = b"\r\n";

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: a missing key, a missing command.
    Nil,
    /// A simple, bulk, verbatim or big-number string.
    Bytes(Vec<u8>),
    /// An integer.
    Integer(i64),
    /// A floating-point number (RESP3 only).
    Double(f64),
    /// True or false (RESP3 only).
    Boolean(bool),
    /// A refusal, its code first: `MOVED 3999 127.0.0.1:6381`.
    Error(String),
    /// An array, a set or a push message.
    Array(Vec<Value>),
    /// A map (RESP3 only).
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// Its text, or a panic that shows what it is instead.
    pub fn text(&self) -> String {
        match self {
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// Its bytes, or a panic that shows what it is instead.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            other => panic!("no bytes: {other:?}"),
        }
    }

    /// Its number, or a panic that shows what it is instead.
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(number) => *number,
            other => panic!("no integer: {other:?}"),
        }
    }

    /// Its items, or a panic that shows what it is instead.
    pub fn items(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            other => panic!("no array: {other:?}"),
        }
    }

    /// The refusal, or a panic that shows what it is instead.
    pub fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            other => panic!("no error: {other:?}"),
        }
    }

    /// Whether there is nothing.
    pub fn is_nil(&self) -> bool {
        *self == Self::Nil
    }

    /// Whether it is `OK`.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Bytes(bytes) if bytes == b"OK")
    }

    /// A map's value, of RESP3 or as RESP2's flat array.
    pub fn field(&self, name: &str) -> Option<&Self> {
        let is_name = |key: &Self| matches!(key, Self::Bytes(bytes) if bytes == name.as_bytes());
        match self {
            Self::Map(pairs) => pairs.iter().find(|(key, _)| is_name(key)).map(|(_, value)| value),
            Self::Array(items) => items.chunks_exact(2).find(|pair| is_name(&pair[0])).map(|pair| &pair[1]),
            _ => None,
        }
    }
}

/// Reads one answer; what it holds first, since answers nest.
pub(super) async fn read(from: &mut (impl AsyncBufRead + Unpin + Send)) -> Result<Value> {
    let (kind, line) = read_line(from).await?;
    Ok(match kind {
        b'+' | b'(' => Value::Bytes(line.into_bytes()),
        b'-' => Value::Error(line),
        b':' => Value::Integer(number(&line)?),
        b',' => Value::Double(number(&line)?),
        b'#' => Value::Boolean(line == "t"),
        b'_' => Value::Nil,
        b'$' | b'=' | b'!' => read_bytes(from, kind, &line).await?,
        b'*' | b'~' | b'>' => read_items(from, &line, 1).await?.map_or(Value::Nil, Value::Array),
        b'%' => Value::Map(pairs(read_items(from, &line, 2).await?.unwrap_or_default())),
        _ => return Err(invalid(&format!("unknown kind {:?}", char::from(kind)))),
    })
}

async fn read_line(from: &mut (impl AsyncBufRead + Unpin)) -> Result<(u8, String)> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line).await?;
    let line = line.strip_suffix(LINE_END).ok_or(ErrorKind::UnexpectedEof)?;
    let (kind, rest) = line.split_first().ok_or_else(|| invalid("an empty line"))?;
    Ok((*kind, String::from_utf8_lossy(rest).into_owned()))
}

async fn read_bytes(from: &mut (impl AsyncBufRead + Unpin), kind: u8, length: &str) -> Result<Value> {
    let Some(length) = length_of(length, BYTES_MAX)? else { return Ok(Value::Nil) };
    let mut bytes = vec![0; length + LINE_END.len()];
    from.read_exact(&mut bytes).await?;
    bytes.truncate(length);
    Ok(match kind {
        b'!' => Value::Error(String::from_utf8_lossy(&bytes).into_owned()),
        // A verbatim string names its format first: `txt:`.
        b'=' => Value::Bytes(bytes.split_off(length.min(4))),
        _ => Value::Bytes(bytes),
    })
}

async fn read_items(
    from: &mut (impl AsyncBufRead + Unpin + Send),
    count: &str,
    each: usize,
) -> Result<Option<Vec<Value>>> {
    let Some(count) = length_of(count, ITEMS_MAX)? else { return Ok(None) };
    let mut items = Vec::new();
    for _ in 0..count * each {
        items.push(Box::pin(read(&mut *from)).await?);
    }
    Ok(Some(items))
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
}

/// None: RESP2's nil.
fn length_of(text: &str, max: usize) -> Result<Option<usize>> {
    match number::<i64>(text)? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).ok().filter(|length| *length <= max);
            length.map(Some).ok_or_else(|| invalid("a length out of bounds"))
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| invalid("no number"))
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
