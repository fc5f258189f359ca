//! Typed reading of an object's fields. `null` counts as absent, as servers of every dialect have it.

use std::borrow::Cow;

use super::error::{ParseError, kind_name};
use crate::json::{Kind, Tag, Value};

/// An object with its place in the body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'d> {
    pub(super) object: Value<'d>,
    names: Names,
    place: Place,
}

/// Which names an object may have: requests are asked for dozens of fields that they don't have, and most of those are told by
/// a bit.
#[derive(Clone, Copy, Debug)]
struct Names(u64);

impl Names {
    fn may_have(self, name: &str) -> bool {
        self.0 & Tag::of(name.as_bytes()).bit() != 0
    }
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Top,
    Within(&'static str),
    Message(usize),
}

impl<'d> Fields<'d> {
    /// The body itself.
    pub(super) fn top(object: Value<'d>) -> Result<Self, ParseError> {
        let fields = Self::at(object, Place::Top);
        if object.kind() == Kind::Object { Ok(fields) } else { Err(fields.invalid("", object, "an object")) }
    }

    /// A message of `messages`.
    pub(super) fn message(message: Value<'d>, index: usize) -> Result<Self, ParseError> {
        let fields = Self::at(message, Place::Message(index));
        if message.kind() == Kind::Object {
            Ok(fields)
        } else {
            Err(fields.invalid("", message, "an object"))
        }
    }

    fn at(object: Value<'d>, place: Place) -> Self {
        Self { object, names: Names(object.name_bits()), place }
    }

    /// A field that is there, be it null.
    #[inline]
    pub(super) fn member(self, name: &str) -> Option<Value<'d>> {
        if self.names.may_have(name) { self.object.member(name) } else { None }
    }

    /// A field that is there and isn't null.
    pub(super) fn any(self, name: &str) -> Option<Value<'d>> {
        self.member(name).filter(|value| !value.is_null())
    }

    /// An object within the body.
    pub(super) fn within(self, name: &'static str) -> Result<Option<Self>, ParseError> {
        let object =
            self.typed(name, "an object", |value| (value.kind() == Kind::Object).then_some(value))?;
        Ok(object.map(|object| Self::at(object, Place::Within(name))))
    }

    pub(super) fn boolean(self, name: &str) -> Result<Option<bool>, ParseError> {
        self.typed(name, "a boolean", Value::as_bool)
    }

    pub(super) fn string(self, name: &str) -> Result<Option<Cow<'d, str>>, ParseError> {
        self.typed(name, "a string", Value::as_str)
    }

    pub(super) fn array(self, name: &str) -> Result<Option<Value<'d>>, ParseError> {
        self.typed(name, "an array", |value| (value.kind() == Kind::Array).then_some(value))
    }

    /// An integer's lexeme.
    pub(super) fn integer(self, name: &str) -> Result<Option<&'d str>, ParseError> {
        self.typed(name, "an integer", |value| {
            value.as_number().filter(|lexeme| !lexeme.contains(['.', 'e', 'E']))
        })
    }

    pub(super) fn number(self, name: &str) -> Result<Option<f64>, ParseError> {
        self.typed(name, "a number", |value| value.as_number()?.parse().ok())
    }

    /// A string or array.
    pub(super) fn text_or_array(self, name: &str) -> Result<Option<Value<'d>>, ParseError> {
        self.typed(name, "a string, an array or null", |value| {
            matches!(value.kind(), Kind::Array | Kind::PlainString | Kind::EscapedString).then_some(value)
        })
    }

    /// Whether the field is an array with something in it.
    pub(super) fn is_filled(self, name: &str) -> bool {
        self.any(name).is_some_and(|value| value.elements().next().is_some())
    }

    /// Whether the field is `true`, or a number above zero: how the dialects ask for extras such as log probabilities.
    pub(super) fn is_on(self, name: &str) -> bool {
        self.any(name).is_some_and(|value| match value.as_number() {
            Some(lexeme) => lexeme.parse() != Ok(0.0),
            None => value.as_bool() != Some(false),
        })
    }

    pub(super) fn required<T>(
        self,
        found: Option<T>,
        name: &str,
        expected: &'static str,
    ) -> Result<T, ParseError> {
        found.ok_or_else(|| ParseError::Missing { path: self.path(name), expected })
    }

    pub(super) fn invalid(self, name: &str, value: Value<'_>, expected: &'static str) -> ParseError {
        ParseError::Invalid { path: self.path(name), expected, found: kind_name(value) }
    }

    /// An error for a value of the right type that is still not allowed.
    pub(super) fn refused(self, name: &str, expected: &'static str, found: &'static str) -> ParseError {
        ParseError::Invalid { path: self.path(name), expected, found }
    }

    fn typed<T>(
        self,
        name: &str,
        expected: &'static str,
        read: impl FnOnce(Value<'d>) -> Option<T>,
    ) -> Result<Option<T>, ParseError> {
        let Some(value) = self.any(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.invalid(name, value, expected))
    }

    fn path(self, name: &str) -> String {
        match (self.place, name) {
            (Place::Top, "") => "body".to_owned(),
            (Place::Top, name) => name.to_owned(),
            (Place::Within(object), name) => format!("{object}.{name}"),
            (Place::Message(index), "") => format!("messages[{index}]"),
            (Place::Message(index), name) => format!("messages[{index}].{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::{Limits, read_text};

    proptest! {
        #[test]
        fn a_field_is_found_exactly_where_the_object_has_it(
            names in proptest::collection::btree_set("[a-c\\\\\"]{0,3}", 0..6),
            asked in "[a-c\\\\\"]{0,3}",
        ) {
            let members: Vec<String> =
                names.iter().map(|name| format!("{}:1", serde_json::to_string(name).unwrap())).collect();
            let text = format!("{{{}}}", members.join(","));
            let document = read_text(&text, Limits { depth_max: 4, nodes_max: 100 }).unwrap();
            let fields = Fields::top(document.root()).unwrap();
            prop_assert_eq!(fields.any(&asked).is_some(), names.contains(&asked));
        }
    }
}
