//! What is compared when similar questions are looked for, if a policy chooses other text than the last user message.

use bytes::Bytes;
use refrain_core::{EmbedSource, ExactOnly};

use super::{ParsedRequest, is_keyed, view};
use crate::json::{self, Cut, Value};

/// A request, split into what must match exactly and what is compared by meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The canonical keyed body with a mark in the place of each text that was cut out. Marks tell the sources apart, so that
    /// texts are only ever compared with texts that were chosen in the same way.
    pub partition_body: Bytes,
    /// Exactly all text that was cut out, framed so that no piece can run into the next: together with `partition_body` it
    /// is the whole keyed body.
    pub excised: String,
    /// What is embedded and compared. May be less than what was cut out.
    pub embed_text: String,
}

/// Marks in the place of a text that was cut out, by source. A span's is followed by what it leaves.
mod mark {
    pub(super) const LAST: &str = "@";
    pub(super) const TEXT: &str = "@t";
    pub(super) const USER: &str = "@u";
    pub(super) const LAST_MESSAGES: &str = "@m";
}

impl ParsedRequest {
    /// Splits the request by a source. For [`EmbedSource::LastUserMessage`] the split is the prompt's own (`partition_body`,
    /// and `embed_text` as both texts), which costs nothing: callers on the hot path take it from there.
    ///
    /// - `Span`: bytes of the last user message as decoded text, cut inwards to whole characters. What lies before and after
    ///   stays in `partition_body`.
    /// - `AllUserMessages`: joined by line ends.
    /// - `LastMessages`: as `role: text`, joined by line ends; at least one. Roles stay in `partition_body` too.
    /// - `Text`: the last user message is cut out.
    ///
    /// # Errors
    /// What forbids semantic look-up of the request at all; [`ExactOnly::NotText`] if a message that would be cut out is
    /// not plain text, [`ExactOnly::Empty`] if what would be compared is blank.
    pub fn compared(&self, source: &EmbedSource) -> Result<Compared, ExactOnly> {
        let last = self.prompt.embed_text.as_ref().map_err(|reason| *reason)?;
        let compared = match source {
            EmbedSource::LastUserMessage => Compared {
                partition_body: self.prompt.partition_body.clone(),
                excised: last.clone(),
                embed_text: last.clone(),
            },
            EmbedSource::Span { start, len } => self.span(last, *start as usize, *len as usize)?,
            EmbedSource::Text(text) => Compared {
                partition_body: self.less(&self.last_text()?, mark::TEXT),
                excised: last.clone(),
                embed_text: text.clone(),
            },
            EmbedSource::AllUserMessages => {
                let is_user = |message: &Value<'_>| view::role(*message) == "user";
                self.several(self.said().all().filter(is_user), mark::USER, |_, text| text)?
            }
            EmbedSource::LastMessages(count) => {
                let all: Vec<_> = self.said().all().collect();
                let last = &all[all.len().saturating_sub((*count).max(1) as usize)..];
                let spoken = |message, text| format!("{}: {text}", view::role(message));
                self.several(last.iter().copied(), mark::LAST_MESSAGES, spoken)?
            }
        };
        if compared.embed_text.trim().is_empty() { Err(ExactOnly::Empty) } else { Ok(compared) }
    }

    fn span(&self, last: &str, start: usize, len: usize) -> Result<Compared, ExactOnly> {
        let end = last.floor_char_boundary(start.saturating_add(len));
        let start = last.ceil_char_boundary(start.min(last.len()));
        let span = last.get(start..end).ok_or(ExactOnly::Empty)?;
        let mut mark = String::from(mark::LAST);
        json::string(&last[..start], &mut mark);
        json::string(&last[end..], &mut mark);
        Ok(Compared {
            partition_body: self.less(&self.last_text()?, &mark),
            excised: span.to_owned(),
            embed_text: span.to_owned(),
        })
    }

    fn several<'d>(
        &self,
        messages: impl Iterator<Item = Value<'d>>,
        mark: &str,
        spoken: impl Fn(Value<'d>, String) -> String,
    ) -> Result<Compared, ExactOnly> {
        let (mut cut, mut excised, mut texts) = (Vec::new(), String::new(), Vec::new());
        for message in messages {
            let value = view::plain(message).ok_or(ExactOnly::NotText)?;
            let text = value.as_str().ok_or(ExactOnly::NotText)?.into_owned();
            json::string(&text, &mut excised);
            texts.push(spoken(message, text));
            cut.push(value);
        }
        Ok(Compared { partition_body: self.less(&cut, mark), excised, embed_text: texts.join("\n") })
    }

    /// The text of the last user message.
    fn last_text(&self) -> Result<[Value<'_>; 1], ExactOnly> {
        self.embed.map(|place| [self.root().at(place)]).ok_or(ExactOnly::NotText)
    }

    /// The keyed body less those values.
    fn less(&self, cut: &[Value<'_>], mark: &str) -> Bytes {
        let mut keyed = String::with_capacity(self.body.len());
        json::canonical_members(self.root(), is_keyed, Cut { values: cut, mark }, &mut keyed);
        keyed.into()
    }
}
