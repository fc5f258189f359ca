//! The JSON schema of the config file.

/// The JSON schema of the config file: pretty, with sorted keys, ending in a newline.
pub fn schema_json() -> String {
    String::new()
}
