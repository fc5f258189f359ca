//! Where the configuration comes from, kept so that a reload asks the same again: command line over environment over
//! file.

use std::net::SocketAddr;
use std::path::PathBuf;

use refrain_config::{Errors, Loaded, Place, Problem, Source};
use refrain_core::Settings;

use crate::cli::ServeArguments;

/// Said after mistakes of a configuration.
pub(crate) const MISTAKES_HINT: &str =
    "the configuration was not applied; `refrain schema` lists every setting, `refrain --help` has examples";

/// Names the config file if the command line names nothing.
const CONFIG_VARIABLE: &str = "REFRAIN_CONFIG";

/// Said when there is nothing to serve.
const NOTHING_TO_SERVE: &str = "nothing to serve; give either\n  \
     --config FILE    (or REFRAIN_CONFIG=FILE) to serve what a file says, or\n  \
     --upstream URL   to cache in front of one server, such as --upstream http://127.0.0.1:11434";

/// The command line says too little.
#[derive(Debug)]
pub(crate) struct NothingToServe;

impl std::error::Error for NothingToServe {}

impl std::fmt::Display for NothingToServe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(NOTHING_TO_SERVE)
    }
}

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    base: Base,
    listen: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    log: Option<String>,
}

#[derive(Clone, Debug)]
enum Base {
    File(PathBuf),
    Upstream(String),
}

impl Origin {
    /// What the command line says; `file` is the one that the environment names, for a command line that names nothing.
    ///
    /// # Errors
    /// Neither a file nor an upstream is named.
    pub(crate) fn new(arguments: &ServeArguments, file: Option<PathBuf>) -> Result<Self, NothingToServe> {
        let ServeArguments { config, upstream, listen, admin, log } = arguments.clone();
        let base = match (config, upstream, file) {
            (Some(file), _, _) | (None, None, Some(file)) => Base::File(file),
            (None, Some(url), _) => Base::Upstream(url),
            (None, None, None) => return Err(NothingToServe),
        };
        Ok(Self { base, listen, admin, log })
    }

    /// The file that the environment names.
    pub(crate) fn file_of_environment() -> Option<PathBuf> {
        std::env::var_os(CONFIG_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from)
    }

    /// A file alone.
    pub(crate) fn file(file: PathBuf) -> Self {
        Self { base: Base::File(file), listen: None, admin: None, log: None }
    }

    /// The config file's name, if there is one.
    pub(crate) fn config_file(&self) -> Option<&PathBuf> {
        match &self.base {
            Base::File(file) => Some(file),
            Base::Upstream(_) => None,
        }
    }

    /// Reads everything anew. Blocks on files.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub(crate) fn load(&self) -> Result<Loaded, Errors> {
        let mut loaded = match &self.base {
            Base::File(file) => {
                let mut loaded =
                    refrain_config::load(&Source::read(file, refrain_config::process_environment())?)?;
                if let Some(address) = self.listen {
                    listen_on(&mut loaded.settings, address)?;
                }
                loaded
            }
            Base::Upstream(url) => Loaded {
                settings: refrain_config::for_upstream(url, self.listen)?,
                warnings: Vec::new(),
                files: Vec::new(),
            },
        };
        if let Some(address) = self.admin {
            admin_on(&mut loaded.settings, address)?;
        }
        if let Some(filter) = &self.log {
            loaded.settings.log.filter.clone_from(filter);
        }
        Ok(loaded)
    }
}

/// Moves the admin listener to another address.
fn admin_on(settings: &mut Settings, address: SocketAddr) -> Result<(), Errors> {
    let admin = settings.admin.get_or_insert_default();
    // Loopback alone may have made it open to everybody.
    let was_private = admin.tokens.is_empty() && admin.address.ip().is_loopback();
    if was_private && !address.ip().is_loopback() {
        let message = format!(
            "{address} can be reached from other machines; write the address into the file, with an [admin.token.NAME] \
             or with allow_anonymous = true"
        );
        return Err(refused("--admin", message));
    }
    admin.address = address;
    Ok(())
}

/// Moves the only listener to another address.
fn listen_on(settings: &mut Settings, address: SocketAddr) -> Result<(), Errors> {
    let names: Vec<_> = settings.listeners.iter().map(|listener| listener.id.to_string()).collect();
    let [listener] = settings.listeners.as_mut_slice() else {
        return Err(refused(
            "--listen",
            format!("the file has several listeners ({}); change their addresses there", names.join(", ")),
        ));
    };
    // Loopback alone may have made the listener open to everybody: that must not be carried to a network.
    if listener.allow_anonymous && listener.is_loopback() && !address.ip().is_loopback() {
        return Err(refused(
            "--listen",
            format!(
                "{address} can be reached from other machines, and listener \"{}\" serves callers without a key; \
             write the address into the file, with keys or with allow_anonymous = true",
                listener.id
            ),
        ));
    }
    listener.address = address;
    Ok(())
}

fn refused(argument: &str, message: String) -> Errors {
    Errors::from(Problem {
        place: Place::Argument(argument.into()),
        path: String::new(),
        message,
        suggestion: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(listen: &str, admin: &str) -> ServeArguments {
        ServeArguments {
            upstream: Some("http://127.0.0.1:1".into()),
            listen: Some(listen.parse().unwrap()),
            admin: Some(admin.parse().unwrap()),
            log: Some("debug".into()),
            config: None,
        }
    }

    #[test]
    fn without_a_file_or_an_upstream_the_error_shows_both_ways() {
        let error = Origin::new(&ServeArguments::default(), None).unwrap_err().to_string();
        assert!(error.contains("--config FILE") && error.contains("--upstream URL"), "{error}");
    }

    #[test]
    fn the_environment_names_a_file_only_if_the_command_line_names_nothing() {
        let chosen = |arguments: &ServeArguments| {
            Origin::new(arguments, Some("environment.toml".into())).unwrap().config_file().cloned()
        };
        let file = ServeArguments { config: Some("line.toml".into()), ..ServeArguments::default() };
        assert_eq!(chosen(&file), Some("line.toml".into()));
        assert_eq!(chosen(&upstream("127.0.0.1:0", "127.0.0.1:0")), None);
        assert_eq!(chosen(&ServeArguments::default()), Some("environment.toml".into()));
    }

    #[test]
    fn the_command_line_wins_over_defaults() {
        let settings = Origin::new(&upstream("127.0.0.1:1234", "127.0.0.1:2345"), None)
            .unwrap()
            .load()
            .unwrap()
            .settings;
        assert_eq!(settings.listeners[0].address.port(), 1234);
        assert_eq!(settings.admin.unwrap().address.port(), 2345);
        assert_eq!(settings.log.filter, "debug");
    }

    #[test]
    fn an_anonymous_loopback_listener_is_not_moved_to_a_network() {
        let mut settings = refrain_config::for_upstream("http://127.0.0.1:1", None).unwrap();
        let error = listen_on(&mut settings, ([0, 0, 0, 0], 8080).into()).unwrap_err().to_string();
        assert!(error.starts_with("--listen: 0.0.0.0:8080 can be reached"), "{error}");
        listen_on(&mut settings, ([127, 0, 0, 1], 8081).into()).unwrap();
        assert_eq!(settings.listeners[0].address.port(), 8081);
    }
}
