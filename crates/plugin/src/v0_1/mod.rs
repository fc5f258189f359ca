//! The adapter for `refrain:policy@0.1`: the only place that knows this version. What guests answer becomes
//! [`crate::answer`] at once, unchecked.

mod imports;
mod lift;
mod lower;

use wasmtime::component::{HasSelf, Instance, InstancePre, Linker};
use wasmtime::{Result, Store};

use crate::answer::{About, Answer, Judged, Stored, Violation};
use crate::guest::Guest;
use crate::verdict::Candidate;
use crate::view::{RequestSummary, ResponseSummary};

use bindings::exports::refrain::policy as exports;

mod bindings {
    #![allow(missing_docs, unreachable_pub, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "../../wit/policy-0.1",
        world: "cache-policy-full",
        imports: { "refrain:policy/embed.similarity": async },
        exports: { default: async },
    });
}

/// What every policy exports, with the version that stands for all compatible ones.
pub(crate) const SETUP: &str = "refrain:policy/setup@0.1.0";
/// As [`SETUP`].
pub(crate) const DECIDE: &str = "refrain:policy/decide@0.1.0";
const VALIDATE: &str = "refrain:policy/validate@0.1.0";
const STORE: &str = "refrain:policy/store@0.1.0";

/// Interfaces of the package that a policy may import.
pub(crate) const IMPORTS: [&str; 9] =
    ["types", "values", "request", "route", "host", "candidates", "response", "state", "embed"];

/// Offers everything of the package.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> Result<()> {
    use bindings::refrain::policy as imports;
    imports::request::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    imports::candidates::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    imports::response::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    imports::route::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    imports::host::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    imports::state::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    imports::embed::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)
}

/// Where a component has its hooks: looked up once a component.
#[derive(Clone)]
pub(crate) struct Indices {
    setup: exports::setup::GuestIndices,
    decide: exports::decide::GuestIndices,
    validate: Option<exports::validate::GuestIndices>,
    store: Option<exports::store::GuestIndices>,
}

/// The hooks of an instance.
pub(crate) struct Hooks {
    setup: exports::setup::Guest,
    decide: exports::decide::Guest,
    validate: Option<exports::validate::Guest>,
    store: Option<exports::store::Guest>,
}

/// An answer as the guest gave it, or why it is none.
pub(crate) type Told<T> = Result<Result<T, Violation>>;

impl Indices {
    pub(crate) fn new(pre: &InstancePre<Guest>) -> Result<Self> {
        let has = |name: &str| pre.component().get_export_index(None, name).is_some();
        Ok(Self {
            setup: exports::setup::GuestIndices::new(pre)?,
            decide: exports::decide::GuestIndices::new(pre)?,
            validate: has(VALIDATE).then(|| exports::validate::GuestIndices::new(pre)).transpose()?,
            store: has(STORE).then(|| exports::store::GuestIndices::new(pre)).transpose()?,
        })
    }

    pub(crate) fn has_validate(&self) -> bool {
        self.validate.is_some()
    }

    pub(crate) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// Finds the hooks in an instance, and checks their types.
    pub(crate) fn load(&self, store: &mut Store<Guest>, instance: &Instance) -> Result<Hooks> {
        Ok(Hooks {
            setup: self.setup.load(&mut *store, instance)?,
            decide: self.decide.load(&mut *store, instance)?,
            validate: self.validate.as_ref().map(|hook| hook.load(&mut *store, instance)).transpose()?,
            store: self.store.as_ref().map(|hook| hook.load(&mut *store, instance)).transpose()?,
        })
    }
}

impl Hooks {
    /// `setup.configure`: what the policy says of itself, or why it refuses its config.
    pub(crate) async fn configure(
        &self,
        store: &mut Store<Guest>,
        config: &str,
    ) -> Result<Result<About, String>> {
        let about = self.setup.call_configure(store, config).await?;
        Ok(about.map(lift::about))
    }

    /// `decide.on-request`.
    pub(crate) async fn on_request(&self, store: &mut Store<Guest>, request: RequestSummary) -> Told<Answer> {
        let decision = self.decide.call_on_request(store, &lower::request(request)).await?;
        Ok(lift::decision(decision))
    }

    /// `validate.on-candidates`.
    pub(crate) async fn on_candidates(
        &self,
        store: &mut Store<Guest>,
        request: RequestSummary,
        context: &str,
        candidates: Vec<Candidate>,
    ) -> Told<Judged> {
        let Some(hook) = &self.validate else {
            return Ok(Ok(Judged::Accept(0)));
        };
        let candidates: Vec<_> = candidates.into_iter().map(lower::candidate).collect();
        let verdict = hook.call_on_candidates(store, &lower::request(request), context, &candidates).await?;
        Ok(Ok(lift::verdict(verdict)))
    }

    /// `store.on-response`.
    pub(crate) async fn on_response(
        &self,
        store: &mut Store<Guest>,
        request: RequestSummary,
        context: &str,
        response: ResponseSummary,
    ) -> Told<Option<Stored>> {
        let Some(hook) = &self.store else {
            return Ok(Ok(None));
        };
        let (request, response) = (lower::request(request), lower::response(response));
        let outcome = hook.call_on_response(store, &request, context, &response).await?;
        Ok(Ok(Some(lift::outcome(outcome))))
    }
}
