//! A few bits of an object's name, by which most names are told apart without a look at the text.

/// Of one decoded name. Names that are the same have the same tag; others may have it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tag(u16);

impl Tag {
    /// By the name's ends and its length. The factor is one of those that give the fields of OpenAI's, Ollama's and
    /// Anthropic's answers different [`Tag::bit`]s.
    pub(crate) const fn of(name: &[u8]) -> Self {
        let ends = match name {
            [] => return Self(0),
            [first, .., last] => [*first, *last],
            [only] => [*only, *only],
        };
        Self(u16::from_le_bytes(ends).wrapping_add(name.len() as u16).wrapping_mul(6427))
    }

    /// One bit of 64.
    pub(crate) const fn bit(self) -> u64 {
        1 << (self.0 >> 10)
    }
}
