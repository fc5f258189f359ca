//! An answer as it is stored. A whole one stays as it came, and is judged without its record where that can be done:
//! the record is made when somebody wants another form of it.

use bytes::Bytes;
use refrain_core::{Skip, Usage};

use super::Rendering;
use super::encode::{DecodeError, WHOLE_HEADER_BYTES, split_whole};
use super::plain::{self, Judged};
use super::record::Answer;

/// An answer as it is stored, with what is asked of it before it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    bytes: Bytes,
    judged: Judged,
}

impl Encoded {
    /// Of a whole answer with its header before it, if it can be judged as it is.
    pub(super) fn of_whole(bytes: &mut Vec<u8>) -> Option<Self> {
        let judged = split_whole(bytes).and_then(|(api, text)| plain::judge(api, text))?;
        // Without room that nobody would count.
        Some(Self { bytes: std::mem::take(bytes).into_boxed_slice().into(), judged })
    }

    /// Of what was stored.
    ///
    /// # Errors
    /// It is not an answer of a version that this program knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let judged = match split_whole(bytes) {
            // Nothing else was stored so.
            Some((api, text)) => plain::judge(api, text).ok_or(DecodeError::Damaged)?,
            None => judged(&Answer::decode(bytes)?),
        };
        Ok(Self { bytes: Bytes::copy_from_slice(bytes), judged })
    }

    /// What is stored.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// As [`Encoded::bytes`].
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// As [`Answer::usage`].
    pub fn usage(&self) -> Usage {
        self.judged.usage
    }

    /// As [`Answer::storable`].
    ///
    /// # Errors
    /// The reason why not.
    pub fn storable(&self) -> Result<(), Skip> {
        self.judged.storable
    }

    /// As [`Answer::id`].
    pub fn id(&self) -> Option<&str> {
        self.judged.id.as_deref()
    }

    /// The answer.
    ///
    /// # Errors
    /// None in what this process read from an upstream or decoded.
    pub fn answer(&self) -> Result<Answer, DecodeError> {
        Answer::decode(&self.bytes)
    }
}

/// The body for a client who wants a stored answer in the form in which it came, if it was stored so.
pub fn as_it_came(encoded: &Bytes, rendering: Rendering) -> Option<Bytes> {
    let came_so = rendering == Rendering::Whole && split_whole(encoded).is_some();
    came_so.then(|| encoded.slice(WHOLE_HEADER_BYTES..))
}

impl From<&Answer> for Encoded {
    fn from(answer: &Answer) -> Self {
        Self { bytes: answer.encode().into(), judged: judged(answer) }
    }
}

fn judged(answer: &Answer) -> Judged {
    Judged { usage: answer.usage(), storable: answer.storable(), id: answer.id() }
}
