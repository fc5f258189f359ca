//! Finds a few members of one JSON document as its bytes pass. It follows strings and brackets and checks nothing else; a
//! member counts only at the top, or directly within the `message` of an Anthropic event and the `response` of an OpenAI
//! one, so that nothing which a model says is taken for a count.

/// Longest name that is kept; a longer one is none of those looked for.
const NAME_BYTES_MAX: usize = 24;
/// Longest value that is kept.
const VALUE_BYTES_MAX: usize = 4096;

/// What was found.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A `usage` object, as written.
    Usage(&'a [u8]),
    /// Ollama's `prompt_eval_count`.
    PromptCount(u64),
    /// Ollama's `eval_count`.
    AnswerCount(u64),
}

/// A document of which some bytes have passed.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Open brackets, of either kind.
    depth: u32,
    text: Text,
    /// The last string, if it can be a name: its first bytes.
    name: Vec<u8>,
    /// Whether what is at depth 2 belongs to one of the members that are looked into.
    is_inside: bool,
    kept: Option<Kept>,
    has_begun: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    AfterBackslash,
}

/// A value that is being kept.
#[derive(Debug)]
struct Kept {
    member: Member,
    /// Where its name stood.
    depth: u32,
    value: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Member {
    Usage,
    PromptCount,
    AnswerCount,
}

impl Scan {
    /// Whether an object has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Looks at the next bytes, and tells what they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Found<'_>)) {
        while !bytes.is_empty() {
            let taken = match self.text {
                Text::Outside => {
                    self.mark(bytes[0], tell);
                    1
                }
                Text::Inside => self.string(bytes),
                Text::AfterBackslash => {
                    self.text = Text::Inside;
                    1
                }
            };
            if let Some(kept) = &mut self.kept {
                kept.value.extend_from_slice(&bytes[..taken]);
                if kept.value.len() > VALUE_BYTES_MAX {
                    self.kept = None;
                }
            }
            bytes = &bytes[taken..];
        }
    }

    /// Within a string, up to and with its end or a backslash; the number of bytes.
    fn string(&mut self, bytes: &[u8]) -> usize {
        let end = memchr::memchr2(b'"', b'\\', bytes);
        let inside = &bytes[..end.unwrap_or(bytes.len())];
        // One more than the longest, so that what is too long differs from all that is looked for.
        let room = (NAME_BYTES_MAX + 1).saturating_sub(self.name.len());
        self.name.extend_from_slice(&inside[..inside.len().min(room)]);
        let Some(end) = end else { return bytes.len() };
        self.text = if bytes[end] == b'"' { Text::Outside } else { Text::AfterBackslash };
        end + 1
    }

    fn mark(&mut self, byte: u8, tell: &mut impl FnMut(Found<'_>)) {
        match byte {
            b'"' => {
                self.text = Text::Inside;
                self.name.clear();
            }
            b'{' | b'[' => {
                self.has_begun = true;
                self.depth += 1;
            }
            b'}' | b']' => {
                self.end_value(byte, tell);
                self.depth = self.depth.saturating_sub(1);
                self.is_inside &= self.depth > 1;
            }
            b',' => self.end_value(byte, tell),
            b':' => self.begin_value(),
            _ => {}
        }
    }

    fn begin_value(&mut self) {
        if self.depth == 1 {
            self.is_inside = matches!(self.name.as_slice(), b"message" | b"response");
        }
        if self.kept.is_some() || !(self.depth == 1 || (self.depth == 2 && self.is_inside)) {
            return;
        }
        let member = match self.name.as_slice() {
            b"usage" => Member::Usage,
            b"prompt_eval_count" => Member::PromptCount,
            b"eval_count" => Member::AnswerCount,
            _ => return,
        };
        self.kept = Some(Kept { member, depth: self.depth, value: Vec::new() });
    }

    /// A value ends at a comma or a bracket of the depth at which its name stood.
    fn end_value(&mut self, byte: u8, tell: &mut impl FnMut(Found<'_>)) {
        if self.kept.as_ref().is_none_or(|kept| kept.depth != self.depth) || byte == b']' {
            return;
        }
        let Some(Kept { member, value, .. }) = self.kept.take() else { return };
        // What was kept begins with the colon.
        let value = value.strip_prefix(b":").unwrap_or(&value).trim_ascii();
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        match member {
            Member::Usage if value.starts_with(b"{") => tell(Found::Usage(value)),
            Member::Usage => {}
            Member::PromptCount => number().into_iter().for_each(|count| tell(Found::PromptCount(count))),
            Member::AnswerCount => number().into_iter().for_each(|count| tell(Found::AnswerCount(count))),
        }
    }
}
