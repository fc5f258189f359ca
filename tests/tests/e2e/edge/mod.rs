//! The edge under attack, and in the operator's hands: floods, slow clients, smuggling, probes, secrets, certificates, upgrades.

mod addresses;
mod bodiless;
mod certificates;
mod examples;
mod floods;
mod honest;
mod probes;
mod secrets;
mod security_page;
mod slow;
mod smuggling;
mod upgrade;
