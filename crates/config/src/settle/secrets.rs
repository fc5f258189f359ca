//! Reads secrets from where the file says they are. No message holds one.

use super::Context;
use crate::raw::SecretSource;
use crate::source::read_bounded;

/// Largest file with a secret, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The secret, not empty; else what is wrong.
pub(super) fn read(context: &mut Context<'_>, raw: SecretSource) -> Result<String, String> {
    let text = match raw {
        SecretSource::Value(value) => value.0,
        SecretSource::Env(variable) => {
            let value = context.source.environment.get(&variable.0);
            let value = value.ok_or_else(|| format!("environment variable {:?} is not set", variable.0))?;
            value.trim_end().to_owned()
        }
        SecretSource::File(file) => {
            let file = context.watched(&file.0);
            let text = read_bounded(&file, SECRET_BYTES_MAX)
                .map_err(|error| format!("can't read {}: {error}", file.display()))?;
            text.trim_end().to_owned()
        }
    };
    if text.trim().is_empty() { Err("is empty".to_owned()) } else { Ok(text) }
}
