//! Writes the JSON schema: `cargo run -p refrain-config --example schema > config/refrain.schema.json`.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    io::stdout().write_all(refrain_config::schema_json().as_bytes())
}
