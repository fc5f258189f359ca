//! The record as bytes: a version, then every field in its order; lengths and numbers as LEB128. Or, under a version of its
//! own, the API's number and the text of a whole answer, from which the record is read when it is asked for.

use refrain_core::Api;

use super::record::{Answer, Choice, Fields, Original, Part, PartKind, Skeleton, Slot, Step};
use super::{AnswerError, AnswerReader, Form};

/// Changes whenever the format does: old records are then misses, never misread.
const VERSION: u8 = 1;
/// Of whole answers that are kept as they came.
const VERSION_WHOLE: u8 = 2;
/// Bytes before the text of a whole answer.
pub(super) const WHOLE_HEADER_BYTES: usize = 2;
const KINDS: [PartKind; 5] =
    [PartKind::Text, PartKind::Reasoning, PartKind::Refusal, PartKind::ToolCall, PartKind::Other];

/// Why bytes are not a stored answer of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version.
    #[error("the record is of the unknown version {0}")]
    Version(u8),
    /// Cut short or damaged.
    #[error("the record is damaged")]
    Damaged,
}

impl Answer {
    /// The record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Without `..`: a new field can't be forgotten.
        let Self { api, head, choices, usage, original } = self;
        let mut out = vec![VERSION];
        number(&mut out, position(&Api::ALL, api));
        fields(&mut out, head);
        list(&mut out, choices, choice);
        option(&mut out, usage.as_ref(), fields);
        let Original { form, skeletons, steps, raw } = original;
        number(&mut out, usize::from(*form == Form::Stream));
        list(&mut out, skeletons, skeleton);
        list(&mut out, steps, |out, step| {
            number(out, step.skeleton);
            step.lengths.iter().for_each(|length| number(out, *length));
        });
        text(&mut out, raw);
        out
    }

    /// Reads what [`Answer::encode`] wrote, or an [`Encoded`](super::Encoded) holds. Never panics, and allocates no more
    /// than a small multiple of the input.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        if let Some((api, text)) = split_whole(record) {
            return read_whole(api, text).map_err(|_| DecodeError::Damaged);
        }
        let mut decoder = Decoder { rest: record };
        let version = decoder.byte().ok_or(DecodeError::Damaged)?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let answer = decoder.answer().ok_or(DecodeError::Damaged)?;
        let is_whole = decoder.rest.is_empty() && pieces_fit(&answer);
        if is_whole { Ok(answer) } else { Err(DecodeError::Damaged) }
    }
}

/// What stands before the text of a whole answer.
pub(super) fn whole_header(api: Api) -> [u8; WHOLE_HEADER_BYTES] {
    [VERSION_WHOLE, position(&Api::ALL, &api) as u8]
}

/// The API and the text of a whole answer that is kept as it came; none for a record.
pub(super) fn split_whole(encoded: &[u8]) -> Option<(Api, &[u8])> {
    let (header, text) = encoded.split_first_chunk::<WHOLE_HEADER_BYTES>()?;
    Some((Api::ALL.into_iter().find(|api| whole_header(*api) == *header)?, text))
}

fn read_whole(api: Api, text: &[u8]) -> Result<Answer, AnswerError> {
    let mut reader = AnswerReader::new(api, Form::Whole, text.len());
    reader.feed(text)?;
    reader.finish()
}

fn position<T: PartialEq>(all: &[T], one: &T) -> usize {
    all.iter().position(|other| other == one).unwrap_or_default()
}

fn number(out: &mut Vec<u8>, value: usize) {
    long(out, value as u64);
}

fn long(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut item: impl FnMut(&mut Vec<u8>, &T)) {
    number(out, items.len());
    items.iter().for_each(|one| item(out, one));
}

fn option<T: ?Sized>(out: &mut Vec<u8>, value: Option<&T>, write: impl FnOnce(&mut Vec<u8>, &T)) {
    number(out, usize::from(value.is_some()));
    if let Some(value) = value {
        write(out, value);
    }
}

fn fields(out: &mut Vec<u8>, fields: &Fields) {
    list(out, &fields.0, |out, (name, value)| {
        text(out, name);
        text(out, value);
    });
}

fn choice(out: &mut Vec<u8>, choice: &Choice) {
    let Choice { index, role, parts, message, finish, logprobs, extra } = choice;
    long(out, *index);
    option(out, role.as_deref(), text);
    list(out, parts, part);
    fields(out, message);
    option(out, finish.as_deref(), text);
    option(out, logprobs.as_ref(), fields);
    fields(out, extra);
}

fn part(out: &mut Vec<u8>, part: &Part) {
    let Part { kind, name, index, text: said, fields: further, function } = part;
    number(out, position(&KINDS, kind));
    text(out, name);
    long(out, *index);
    text(out, said);
    fields(out, further);
    fields(out, function);
}

fn skeleton(out: &mut Vec<u8>, skeleton: &Skeleton) {
    let Skeleton { event, reports_usage, literals, slots } = skeleton;
    text(out, event);
    number(out, usize::from(*reports_usage));
    list(out, slots, |out, slot| match slot {
        Slot::Raw => number(out, 0),
        Slot::Piece { choice, part } => {
            number(out, choice + 1);
            number(out, *part);
        }
    });
    list(out, literals, |out, literal| text(out, literal));
}

struct Decoder<'a> {
    rest: &'a [u8],
}

impl Decoder<'_> {
    fn answer(&mut self) -> Option<Answer> {
        let api = *Api::ALL.get(self.number()?)?;
        let head = self.fields()?;
        let choices = self.list(Self::choice)?;
        let usage = self.option(Self::fields)?;
        let form = if self.flag()? { Form::Stream } else { Form::Whole };
        let skeletons = self.list(Self::skeleton)?;
        let steps = self.list(|decoder| decoder.step(&skeletons))?;
        let raw = self.text()?;
        Some(Answer { api, head, choices, usage, original: Original { form, skeletons, steps, raw } })
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn long(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn number(&mut self) -> Option<usize> {
        self.long()?.try_into().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(std::str::from_utf8(text).ok()?.to_owned())
    }

    /// Items take a byte each at least, so that a length can't promise more than there is.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.number()?;
        if length > self.rest.len() {
            return None;
        }
        (0..length).map(|_| item(self)).collect()
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.flag()? { Some(Some(read(self)?)) } else { Some(None) }
    }

    fn fields(&mut self) -> Option<Fields> {
        Some(Fields(self.list(|decoder| Some((decoder.text()?, decoder.text()?)))?))
    }

    fn choice(&mut self) -> Option<Choice> {
        Some(Choice {
            index: self.long()?,
            role: self.option(Self::text)?,
            parts: self.list(Self::part)?,
            message: self.fields()?,
            finish: self.option(Self::text)?,
            logprobs: self.option(Self::fields)?,
            extra: self.fields()?,
        })
    }

    fn part(&mut self) -> Option<Part> {
        Some(Part {
            kind: *KINDS.get(self.number()?)?,
            name: self.text()?,
            index: self.long()?,
            text: self.text()?,
            fields: self.fields()?,
            function: self.fields()?,
        })
    }

    fn skeleton(&mut self) -> Option<Skeleton> {
        let event = self.text()?;
        let reports_usage = self.flag()?;
        let slots = self.list(|decoder| match decoder.number()? {
            0 => Some(Slot::Raw),
            choice => Some(Slot::Piece { choice: choice - 1, part: decoder.number()? }),
        })?;
        let literals = self.list(Self::text)?;
        let fits = literals.len() == slots.len() + 1;
        fits.then_some(Skeleton { event, reports_usage, literals, slots })
    }

    fn step(&mut self, skeletons: &[Skeleton]) -> Option<Step> {
        let skeleton = self.number()?;
        let slots = skeletons.get(skeleton)?.slots.len();
        let lengths = (0..slots).map(|_| self.number()).collect::<Option<_>>()?;
        Some(Step { skeleton, lengths })
    }
}

/// Whether every slot finds its bytes: each part's pieces and the raw pieces lie within their texts, at characters' borders.
fn pieces_fit(answer: &Answer) -> bool {
    let mut at: Vec<Vec<usize>> = answer.choices.iter().map(|choice| vec![0; choice.parts.len()]).collect();
    let mut raw_at = 0;
    answer.original.steps.iter().all(|step| {
        let slots = answer.original.skeletons.get(step.skeleton).map_or(&[][..], |skeleton| &skeleton.slots);
        slots.iter().zip(&step.lengths).all(|(slot, length)| match *slot {
            Slot::Raw => advance(&mut raw_at, *length, &answer.original.raw),
            Slot::Piece { choice, part } => {
                let text = answer.choices.get(choice).and_then(|choice| choice.parts.get(part));
                text.is_some_and(|text| advance(&mut at[choice][part], *length, &text.text))
            }
        })
    })
}

fn advance(at: &mut usize, length: usize, text: &str) -> bool {
    let end = at.saturating_add(length);
    *at = end;
    end <= text.len() && text.is_char_boundary(end)
}
