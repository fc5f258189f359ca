//! Media and files within a request: known by their bytes, or only by a name that may mean something else tomorrow.

use refrain_core::Bypass;

use crate::json::{Kind, Value};

/// Why a content part forbids caching, if it does: it names media by URL, or a file that the upstream keeps.
pub(super) fn part_bypass(part: Value<'_>) -> Option<Bypass> {
    match part.kind() {
        Kind::Object => part.members().find_map(|(name, value)| member_bypass(&name, value)),
        Kind::Array => part.elements().find_map(part_bypass),
        _ => None,
    }
}

/// Why Ollama's `images` forbid caching, if they do: base64 is fine, an address is not.
pub(super) fn images_bypass(images: Value<'_>) -> Option<Bypass> {
    let is_address = |image: Value<'_>| image.as_str().is_some_and(|image| image.contains("://"));
    images.elements().any(is_address).then_some(Bypass::MediaByUrl)
}

fn member_bypass(name: &str, value: Value<'_>) -> Option<Bypass> {
    match (name, value.kind()) {
        // What a tool was given and plain text are data, whatever they are called.
        ("input" | "arguments" | "text", _) => None,
        ("file_id", kind) if kind != Kind::Null => Some(Bypass::Stateful),
        (_, Kind::PlainString | Kind::EscapedString) => {
            let names_media = name == "url" || name.ends_with("_url");
            let is_data = || value.as_str().is_some_and(|url| url.starts_with("data:"));
            (names_media && !is_data()).then_some(Bypass::MediaByUrl)
        }
        (_, Kind::Object | Kind::Array) => part_bypass(value),
        _ => None,
    }
}
