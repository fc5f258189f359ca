//! A component made ready to run: compiled, checked against the world, linked.

use std::time::{Duration, Instant};

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, types::ComponentItem};

use crate::code::CodeCache;
use crate::engine::{Linkers, MEMORIES_MAX, TABLES_MAX};
use crate::guest::Guest;
use crate::v0_1::{DECIDE, IMPORTS, Indices, SETUP};

/// How a core module's file begins: the magic number, version 1.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A component that can be instantiated.
pub(crate) struct Loaded {
    pub(crate) sha256: [u8; 32],
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    pub(crate) pre: InstancePre<Guest>,
    pub(crate) indices: Indices,
    /// Zero if its code was kept.
    pub(crate) compile_time: Duration,
}

/// Why a file is no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It can't be compiled or linked.
    Component(String),
    /// It imports what is not offered.
    Import(String),
    /// It lacks an export.
    World { missing: &'static str, found: String },
}

/// What loading takes.
pub(crate) struct Loader {
    pub(crate) engine: Engine,
    pub(crate) linkers: Linkers,
    pub(crate) code: Option<CodeCache>,
}

impl Loader {
    /// Compiles, or takes the code that was kept. Takes seconds for interpreters: not for a reactor.
    pub(crate) fn load(&self, sha256: [u8; 32], bytes: &[u8]) -> Result<Loaded, Unfit> {
        let (component, compile_time) = self.compile(sha256, bytes)?;
        let ty = component.component_type();
        let imports: Vec<_> = ty.imports(&self.engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<_> = ty.exports(&self.engine).map(|(name, item)| told(name, &item.ty)).collect();
        check_exports(&component, &exports)?;
        check_imports(&imports)?;
        check_size(&component)?;
        let pre = self.linkers.find(&imports).instantiate_pre(&component).map_err(unfit)?;
        let indices = Indices::new(&pre).map_err(unfit)?;
        Ok(Loaded { sha256, imports, exports, pre, indices, compile_time })
    }

    fn compile(&self, sha256: [u8; 32], bytes: &[u8]) -> Result<(Component, Duration), Unfit> {
        if let Some(component) = self.code.as_ref().and_then(|code| code.find(&self.engine, &sha256)) {
            return Ok((component, Duration::ZERO));
        }
        if bytes.starts_with(CORE_MODULE) {
            return Err(Unfit::Component(
                "it is a core module; make a component of it with `wasm-tools component new`".into(),
            ));
        }
        let began = Instant::now();
        let component = Component::new(&self.engine, bytes).map_err(unfit)?;
        let took = began.elapsed();
        if let Some(code) = &self.code {
            code.keep(&sha256, &component);
        }
        Ok((component, took))
    }
}

fn check_exports(component: &Component, exports: &[String]) -> Result<(), Unfit> {
    let missing = [DECIDE, SETUP].into_iter().find(|name| component.get_export_index(None, name).is_none());
    match missing {
        None => Ok(()),
        Some(missing) if exports.is_empty() => Err(Unfit::World { missing, found: "nothing".into() }),
        Some(missing) => Err(Unfit::World { missing, found: exports.join(", ") }),
    }
}

/// Names the import; the linker would only say that something is missing.
fn check_imports(imports: &[String]) -> Result<(), Unfit> {
    let known = |import: &String| match import.strip_prefix("refrain:policy/") {
        Some(interface) => {
            let name = interface.split_once('@').map_or(interface, |(name, _)| name);
            IMPORTS.contains(&name)
        }
        None => import.starts_with("wasi:"),
    };
    match imports.iter().find(|import| !known(import)) {
        None => Ok(()),
        Some(import) => Err(Unfit::Import(import.clone())),
    }
}

/// What the pool has no room for would fail each instance.
fn check_size(component: &Component) -> Result<(), Unfit> {
    let Some(needs) = component.resources_required() else {
        return Err(Unfit::Component("it imports core modules or components of its own".into()));
    };
    if needs.num_memories > MEMORIES_MAX || needs.num_tables > TABLES_MAX {
        return Err(Unfit::Component(format!(
            "it has {} memories and {} tables (at most {MEMORIES_MAX} and {TABLES_MAX})",
            needs.num_memories, needs.num_tables
        )));
    }
    Ok(())
}

fn told(name: &str, item: &ComponentItem) -> String {
    match item {
        ComponentItem::CoreFunc(_) | ComponentItem::ComponentFunc(_) => format!("{name} (a function)"),
        _ => name.to_owned(),
    }
}

fn unfit(error: wasmtime::Error) -> Unfit {
    let mut text = format!("{error:#}");
    crate::hook::cut(&mut text, 512);
    Unfit::Component(text)
}
