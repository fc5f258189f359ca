//! Why a policy is not loaded, in words that say what to do.

use std::path::PathBuf;

use refrain_core::settings::Grant;
use refrain_core::{PluginId, RouteId};

/// Why policies can't run. Made while loading; what fails while serving is a [`refrain_core::Bypass`] reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The engine could not be set up.
    #[error(
        "plugin host: {message}; `plugin_host.instances` sets how much address space it reserves (16 GiB each)"
    )]
    Engine {
        /// What the engine said.
        message: String,
    },
    /// The directory of compiled code is not this user's alone.
    #[error("plugin host: code directory {}: {message}", .path.display())]
    CodeDir {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The component can't be read.
    #[error("plugin \"{plugin}\": {}: {source}", .path.display())]
    Read {
        /// Which policy.
        plugin: PluginId,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the one that config pins.
    #[error(
        "plugin \"{plugin}\": the file's sha256 is {found}, config pins {pinned}; use the pinned file or change the pin"
    )]
    Pin {
        /// Which policy.
        plugin: PluginId,
        /// What the file has.
        found: String,
        /// What config says.
        pinned: String,
    },
    /// The file is no component that this version can run.
    #[error("plugin \"{plugin}\": not a usable component: {message}")]
    Component {
        /// Which policy.
        plugin: PluginId,
        /// What is wrong with it.
        message: String,
    },
    /// It wants something that policies are not offered.
    #[error(
        "plugin \"{plugin}\": imports {import}, which policies are not offered; build it for the world `cache-policy` of refrain:policy@0.1, with WASI at most"
    )]
    Import {
        /// Which policy.
        plugin: PluginId,
        /// The import.
        import: String,
    },
    /// It is a component for something else.
    #[error(
        "plugin \"{plugin}\": no cache policy: it doesn't export {missing}; build it for the world `cache-policy` of refrain:policy@0.1 (it exports: {found})"
    )]
    World {
        /// Which policy.
        plugin: PluginId,
        /// What a policy must export.
        missing: &'static str,
        /// What it exports.
        found: String,
    },
    /// It can't do without a right that config doesn't give it.
    #[error("plugin \"{plugin}\": needs the grant \"{}\"; add it to `grants` if you trust the policy with it", .grant.as_str())]
    Grant {
        /// Which policy.
        plugin: PluginId,
        /// Which right.
        grant: Grant,
    },
    /// It refused its configuration.
    #[error("plugin \"{plugin}\" on route \"{route}\": refuses its config: {message}")]
    Config {
        /// Which policy.
        plugin: PluginId,
        /// On which route.
        route: RouteId,
        /// In its own words, cut.
        message: String,
    },
    /// Its trial instance failed.
    #[error("plugin \"{plugin}\" on route \"{route}\": its trial instance failed ({reason}): {message}")]
    Trial {
        /// Which policy.
        plugin: PluginId,
        /// On which route.
        route: RouteId,
        /// How.
        reason: &'static str,
        /// Details.
        message: String,
    },
    /// Too many components wait to be compiled.
    #[error("plugin \"{plugin}\": {waiting} components wait to be compiled; try again later")]
    Busy {
        /// Which policy.
        plugin: PluginId,
        /// How many wait.
        waiting: usize,
    },
    /// The host is shutting down, or its compiler is gone.
    #[error("plugin \"{plugin}\": the compiler is gone; restart the proxy")]
    Stopped {
        /// Which policy.
        plugin: PluginId,
    },
}
