//! Listeners: who may connect where.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use refrain_core::settings::{Admin, Certificate, ClientCertificateNeed, ClientCertificates, Listener, Tls};
use refrain_core::{ListenerId, Role};

use super::Context;
use crate::raw;
use crate::text::FilePath;

/// The listener that runs if the file names none.
const DEFAULT_NAME: &str = "main";

pub(super) fn settle(
    context: &mut Context<'_>,
    mut raw: BTreeMap<String, raw::Listener>,
    admin: Option<&Admin>,
    has_credentials: bool,
) -> Vec<Listener> {
    if context.names("listener").is_empty() {
        raw.insert(DEFAULT_NAME.to_owned(), raw::Listener::default());
    }
    let listeners: Vec<Listener> =
        raw.into_iter().map(|(name, raw)| listener(context, &name, raw, has_credentials)).collect();
    check_ports(context, &listeners, admin);
    listeners
}

fn listener(context: &mut Context<'_>, name: &str, raw: raw::Listener, has_credentials: bool) -> Listener {
    let address = raw.address.map_or(Listener::ADDRESS, |address| address.0);
    // One anonymous user with every right: a drop-in for a server on the same machine.
    let is_private = address.ip().is_loopback() && !has_credentials;
    let allow_anonymous = is_private || raw.allow_anonymous.unwrap_or_default();
    if raw.allow_anonymous == Some(false) && is_private {
        context.refuse(
            &["listener", name, "allow_anonymous"],
            "without a [key.NAME] everybody on this machine is anonymous; add a key, or leave this out",
            None,
        );
    }
    if !allow_anonymous && !has_credentials {
        let message = format!(
            "{address} can be reached from other machines: add a [key.NAME] or [jwt.NAME], or allow_anonymous = true"
        );
        context.refuse(&["listener", name, "address"], message, None);
    }
    let role = raw.anonymous_role.map_or(if is_private { Role::Admin } else { Role::Caller }, Role::from);
    if allow_anonymous && role == Role::Admin && !address.ip().is_loopback() {
        context.warn(
            &["listener", name, "anonymous_role"],
            "everybody who can connect may change upstream servers",
        );
    }
    let tls = raw.tls.and_then(|raw| tls(context, name, raw));
    Listener { id: ListenerId::new(name), address, tls, allow_anonymous, anonymous_role: role }
}

impl From<raw::Role> for Role {
    fn from(raw: raw::Role) -> Self {
        match raw {
            raw::Role::Caller => Self::Caller,
            raw::Role::Admin => Self::Admin,
        }
    }
}

/// None if a required part is missing or wrong, which is known already.
fn tls(context: &mut Context<'_>, name: &str, raw: raw::Tls) -> Option<Tls> {
    let raw::Tls { certificates, client_ca, client_auth } = raw;
    let clients = clients(context, name, client_ca, client_auth);
    let certificates = certificates?;
    if certificates.is_empty() {
        context.refuse(&["listener", name, "tls", "certificates"], "name at least one certificate", None);
    }
    let mut certificate = |raw: raw::Certificate| {
        Some(Certificate { chain: context.watched(&raw.chain?.0), key: context.watched(&raw.key?.0) })
    };
    Some(Tls { certificates: certificates.into_iter().filter_map(&mut certificate).collect(), clients })
}

fn clients(
    context: &mut Context<'_>,
    name: &str,
    ca_file: Option<FilePath>,
    need: Option<raw::ClientAuth>,
) -> Option<ClientCertificates> {
    let Some(ca_file) = ca_file else {
        if need.is_some() {
            let message = "say who vouches for clients: client_ca = \"FILE\"";
            context.refuse(&["listener", name, "tls", "client_auth"], message, None);
        }
        return None;
    };
    let need = match need {
        None | Some(raw::ClientAuth::Required) => ClientCertificateNeed::Required,
        Some(raw::ClientAuth::Optional) => ClientCertificateNeed::Optional,
    };
    Some(ClientCertificates { ca_file: context.watched(&ca_file.0), need })
}

fn check_ports(context: &mut Context<'_>, listeners: &[Listener], admin: Option<&Admin>) {
    for (index, listener) in listeners.iter().enumerate() {
        let path = ["listener", listener.id.as_str(), "address"];
        if let Some(other) = listeners[..index].iter().find(|other| clash(other.address, listener.address)) {
            let message = format!("{} is taken by listener {:?}", listener.address, other.id.as_str());
            context.refuse(&path, message, None);
        }
        if admin.is_some_and(|admin| clash(admin.address, listener.address)) {
            context.refuse(&path, format!("{} is taken by the admin listener", listener.address), None);
        }
    }
}

/// Whether two listeners can't both be bound. A wildcard address takes the port of every address.
fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    let same_address = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_address
}
