//! Whose a name is, and what stands under it, by the name alone. Names of another prefix that begins alike
//! (`refrain:1:..` beside `refrain:..`) are nobody's here.

/// What a name of the prefix means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) layout: u32,
    pub(super) what: What,
}

/// What stands there, in the present layout's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Entry,
    Claim,
    /// Of a model.
    VectorSet(String),
    /// Of a model's vector set.
    Expiries(String),
    /// Of a model; no key.
    Index(String),
    /// What a subject of a limit has taken.
    Quota,
    /// What proxies tell each other: `meta` and streams.
    Control(String),
    /// Ours, by where it stands.
    Unknown,
}

/// Reads names of one prefix.
#[derive(Debug)]
pub(super) struct Naming {
    /// `refrain:`
    plain: String,
}

impl Naming {
    pub(super) fn new(prefix: &str) -> Self {
        Self { plain: format!("{prefix}:") }
    }

    /// A pattern that all names of the prefix match, and some others. A prefix has no character that patterns mean more by.
    pub(super) fn pattern(&self) -> String {
        format!("*{}*", self.plain)
    }

    /// Whether the name begins as ours do, whatever it goes on with.
    pub(super) fn begins_alike(&self, name: &[u8]) -> bool {
        name.strip_prefix(b"{").unwrap_or(name).starts_with(self.plain.as_bytes())
    }

    /// What a name means; none: it isn't ours.
    pub(super) fn read(&self, name: &[u8]) -> Option<Found> {
        let name = str::from_utf8(name).ok()?;
        match name.strip_prefix('{') {
            Some(control) => {
                let (layout, what) = control.strip_prefix(&self.plain)?.split_once("}:")?;
                if let Some((layout, subject)) = layout.split_once(":l:") {
                    let is_digest = subject.bytes().all(|byte| byte.is_ascii_hexdigit());
                    return is_digest.then_some(Found { layout: number(layout)?, what: What::Quota });
                }
                Some(Found { layout: number(layout)?, what: What::Control(what.to_owned()) })
            }
            None => {
                let (layout, rest) = name.strip_prefix(&self.plain)?.split_once(':')?;
                Some(Found { layout: number(layout)?, what: what(rest)? })
            }
        }
    }
}

fn what(rest: &str) -> Option<What> {
    if let Some(model) = rest.strip_prefix("i:") {
        return Some(What::Index(model.to_owned()));
    }
    let (_part, rest) = rest.strip_prefix('{')?.split_once("}:")?;
    Some(match rest.split_once(':') {
        Some(("e", _)) => What::Entry,
        Some(("c", _)) => What::Claim,
        Some(("s", model)) => What::VectorSet(model.to_owned()),
        Some(("x", model)) => What::Expiries(model.to_owned()),
        _ => What::Unknown,
    })
}

fn number(text: &str) -> Option<u32> {
    let is_canonical = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| is_canonical && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The expiry set of a vector set, or the other way round.
pub(super) fn sibling(name: &[u8]) -> Option<Vec<u8>> {
    let (part, kind, model) = split(name)?;
    let other: &[u8] = if kind == b's' { b":x:" } else { b":s:" };
    Some([part, other, model].concat())
}

/// The entry that a vector set's member leads to.
pub(super) fn entry_of(set: &[u8], member: &[u8]) -> Option<Vec<u8>> {
    let (part, _, _) = split(set)?;
    Some([part, b":e:", refrain_core::hex(member).as_bytes()].concat())
}

/// `refrain:1:{PART}`, `s` or `x`, and the model.
fn split(name: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let end = name.iter().position(|byte| *byte == b'}')? + 1;
    match &name[end..] {
        [b':', kind @ (b's' | b'x'), b':', model @ ..] => Some((&name[..end], *kind, model)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Names;
    use super::*;

    fn read(name: &str) -> Option<Found> {
        Naming::new("refrain").read(name.as_bytes())
    }

    #[test]
    fn every_name_that_is_given_is_read_back() {
        let names = Names::new("refrain");
        let (partition, key) = ([1; 32], [2; 32]);
        let model = || "m".to_owned();
        for (name, what) in [
            (names.entry(&partition, &key), What::Entry),
            (names.claim(&partition, &key), What::Claim),
            (names.set(&partition, "m"), What::VectorSet(model())),
            (names.expiries(&partition, "m"), What::Expiries(model())),
            (names.index("m"), What::Index(model())),
            (names.quota(&partition).0, What::Quota),
            (names.quota(&partition).1, What::Quota),
            (names.meta(), What::Control("meta".to_owned())),
            (names.purges(), What::Control("purges".to_owned())),
        ] {
            assert_eq!(read(&name), Some(Found { layout: 1, what }), "{name}");
        }
    }

    #[test]
    fn names_of_prefixes_that_begin_alike_are_nobodys() {
        for foreign in ["refrain:1", "refrain:prod", "refrain2", "a:refrain"] {
            let names = Names::new(foreign);
            for name in [names.entry(&[1; 32], &[2; 32]), names.meta(), names.index("m")] {
                assert_eq!(read(&name), None, "{name}");
            }
        }
        for odd in [
            "refrain:",
            "refrain:1:",
            "refrain:x:{a}:e:b",
            "refrain:+1:{a}:e:b",
            "refrain:01:{a}:e:b",
            "{refrain:1}",
        ] {
            assert_eq!(read(odd), None, "{odd}");
        }
    }

    #[test]
    fn other_layouts_are_told_apart() {
        assert_eq!(read("refrain:0:{a}:e:b"), Some(Found { layout: 0, what: What::Entry }));
        assert_eq!(read("refrain:27:{a}:new"), Some(Found { layout: 27, what: What::Unknown }));
        assert_eq!(read("{refrain:2}:meta").unwrap().layout, 2);
    }

    #[test]
    fn a_set_leads_to_its_expiries_and_to_its_entries() {
        let names = Names::new("refrain");
        let (set, expiries) = (names.set(&[1; 32], "m"), names.expiries(&[1; 32], "m"));
        assert_eq!(sibling(set.as_bytes()).unwrap(), expiries.as_bytes());
        assert_eq!(sibling(expiries.as_bytes()).unwrap(), set.as_bytes());
        let entry = names.entry(&[1; 32], &[2; 32]);
        assert_eq!(entry_of(set.as_bytes(), &[2; 32]).unwrap(), entry.as_bytes());
        assert_eq!(sibling(entry.as_bytes()), None);
    }
}
