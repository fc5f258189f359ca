//! `docs/policy-reference.md` must be what the comments of `wit/policy-0.1` say: authors of policies read the page.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use wit_parser::{
    Docs, Function, Interface, PackageId, Resolve, Type, TypeDef, TypeDefKind, World, WorldItem,
};

use crate::workspace;

const WIT: &str = "wit/policy-0.1/policy.wit";
const PAGE: &str = "docs/policy-reference.md";
/// Says which interfaces are hooks.
const FULL_WORLD: &str = "cache-policy-full";

/// Fails if the page in the repository is not the generated one.
pub(super) fn check() -> Result<()> {
    if fs::read_to_string(page()).unwrap_or_default() != generated()? {
        bail!("{PAGE} is not up to date: run `cargo xtask wit-docs`");
    }
    Ok(())
}

/// `cargo xtask wit-docs`: writes the page anew.
pub(crate) fn regenerate() -> Result<()> {
    fs::write(page(), generated()?).with_context(|| format!("can't write {PAGE}"))?;
    println!("written: {}", page().display());
    Ok(())
}

fn page() -> PathBuf {
    workspace::root().join(PAGE)
}

fn generated() -> Result<String> {
    let file = workspace::root().join(WIT);
    let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    reference(&text)
}

/// The page of a package, as Markdown.
fn reference(wit: &str) -> Result<String> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str(WIT, wit).map_err(|error| anyhow::anyhow!("{WIT}: {error}"))?;
    let mut page = Page { resolve: &resolve, text: String::new() };
    page.package(package);
    Ok(page.text)
}

struct Page<'a> {
    resolve: &'a Resolve,
    text: String,
}

impl Page<'_> {
    fn package(&mut self, id: PackageId) {
        let package = &self.resolve.packages[id];
        self.line(&format!("# `{}`", package.name));
        self.line(&format!(
            "Generated from [`{WIT}`](../{WIT}) by `cargo xtask wit-docs`: edit the comments there."
        ));
        self.docs(&package.docs);
        for (name, id) in &package.interfaces {
            self.interface(name, &self.resolve.interfaces[*id], self.role(name, package));
        }
        self.line("## Worlds");
        for (name, id) in &package.worlds {
            self.world(name, &self.resolve.worlds[*id]);
        }
        self.text.truncate(self.text.trim_end().len());
        self.text.push('\n');
    }

    /// Who calls an interface.
    fn role(&self, name: &str, package: &wit_parser::Package) -> &'static str {
        let world = package.worlds.get(FULL_WORLD).map(|id| &self.resolve.worlds[*id]);
        let is_hook =
            world.is_some_and(|world| self.names(world.exports.values()).contains(&name.to_owned()));
        let id = package.interfaces.get(name);
        let has_functions = id.is_some_and(|id| !self.resolve.interfaces[*id].functions.is_empty());
        match (is_hook, has_functions) {
            (true, _) => "A hook: the policy exports it, Refrain calls it.",
            (false, true) => "The policy imports it, and calls it.",
            (false, false) => "Types only.",
        }
    }

    fn interface(&mut self, name: &str, interface: &Interface, role: &str) {
        self.line(&format!("## `{name}`"));
        self.line(&format!("*{role}*"));
        self.docs(&interface.docs);
        for function in interface.functions.values() {
            self.function(function);
        }
        for id in interface.types.values() {
            self.type_def(&self.resolve.types[*id]);
        }
    }

    fn function(&mut self, function: &Function) {
        let parameters: Vec<_> =
            function.params.iter().map(|param| format!("{}: {}", param.name, self.name(&param.ty))).collect();
        let result = function.result.as_ref().map(|ty| format!(" -> {}", self.name(ty))).unwrap_or_default();
        self.line(&format!("### `{}`", function.name));
        self.line(&format!("`{}: func({}){result}`", function.name, parameters.join(", ")));
        self.docs(&function.docs);
    }

    /// Nothing for a type that another interface defines.
    fn type_def(&mut self, def: &TypeDef) {
        let name = def.name.as_deref().unwrap_or_default();
        let head = match &def.kind {
            TypeDefKind::Type(Type::Id(_)) => return,
            TypeDefKind::Record(_)
            | TypeDefKind::Variant(_)
            | TypeDefKind::Enum(_)
            | TypeDefKind::Flags(_) => {
                format!("### {} `{name}`", def.kind.as_str())
            }
            kind => format!("### type `{name}` = `{}`", self.kind_name(kind)),
        };
        self.line(&head);
        self.docs(&def.docs);
        self.members(&def.kind);
    }

    fn members(&mut self, kind: &TypeDefKind) {
        let payload = |ty: &Option<Type>| ty.as_ref().map(|ty| self.name(ty)).unwrap_or_default();
        let rows: Vec<(&str, String, &Docs)> = match kind {
            TypeDefKind::Record(record) => {
                record.fields.iter().map(|field| (&*field.name, self.name(&field.ty), &field.docs)).collect()
            }
            TypeDefKind::Variant(variant) => {
                variant.cases.iter().map(|case| (&*case.name, payload(&case.ty), &case.docs)).collect()
            }
            TypeDefKind::Enum(of) => {
                of.cases.iter().map(|case| (&*case.name, String::new(), &case.docs)).collect()
            }
            TypeDefKind::Flags(flags) => {
                flags.flags.iter().map(|flag| (&*flag.name, String::new(), &flag.docs)).collect()
            }
            _ => return,
        };
        self.table(&rows);
    }

    fn table(&mut self, rows: &[(&str, String, &Docs)]) {
        let typed = rows.iter().any(|(_, ty, _)| !ty.is_empty());
        let documented = rows.iter().any(|(_, _, docs)| !docs.is_empty());
        if !typed && !documented {
            let names: Vec<_> = rows.iter().map(|(name, ..)| format!("`{name}`")).collect();
            return self.line(&names.join(", "));
        }
        self.text.push_str(if typed {
            "| name | type | meaning |\n|---|---|---|\n"
        } else {
            "| name | meaning |\n|---|---|\n"
        });
        for (name, ty, docs) in rows {
            let docs = docs.contents.as_deref().unwrap_or_default();
            let docs = docs.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
            let ty = if ty.is_empty() { String::new() } else { format!("`{ty}`") };
            let ty = if typed { format!(" {ty} |") } else { String::new() };
            // Writing into a string can't fail.
            let _ = writeln!(self.text, "| `{name}` |{ty} {docs} |");
        }
        self.text.push('\n');
    }

    fn world(&mut self, name: &str, world: &World) {
        self.line(&format!("### `{name}`"));
        self.docs(&world.docs);
        let list =
            |items: Vec<String>| items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ");
        let (imports, exports) = (self.names(world.imports.values()), self.names(world.exports.values()));
        self.line(&format!("- imports: {}\n- exports: {}", list(imports), list(exports)));
    }

    fn names<'i>(&self, items: impl Iterator<Item = &'i WorldItem>) -> Vec<String> {
        let name = |item: &WorldItem| match item {
            WorldItem::Interface { id, .. } => self.resolve.interfaces[*id].name.clone(),
            WorldItem::Function(function) => Some(function.name.clone()),
            WorldItem::Type { .. } => None,
        };
        items.filter_map(name).collect()
    }

    /// As it is written in WIT.
    fn name(&self, ty: &Type) -> String {
        let Type::Id(id) = ty else { return format!("{ty:?}").to_lowercase() };
        let def = &self.resolve.types[*id];
        def.name.clone().unwrap_or_else(|| self.kind_name(&def.kind))
    }

    fn kind_name(&self, kind: &TypeDefKind) -> String {
        let optional = |ty: &Option<Type>| ty.as_ref().map_or_else(|| "_".to_owned(), |ty| self.name(ty));
        match kind {
            TypeDefKind::Option(ty) => format!("option<{}>", self.name(ty)),
            TypeDefKind::List(ty) => format!("list<{}>", self.name(ty)),
            TypeDefKind::Tuple(tuple) => {
                format!(
                    "tuple<{}>",
                    tuple.types.iter().map(|ty| self.name(ty)).collect::<Vec<_>>().join(", ")
                )
            }
            TypeDefKind::Result(result) => {
                format!("result<{}, {}>", optional(&result.ok), optional(&result.err))
            }
            TypeDefKind::Type(ty) => self.name(ty),
            other => other.as_str().to_owned(),
        }
    }

    fn docs(&mut self, docs: &Docs) {
        if let Some(text) = &docs.contents {
            self.line(text.trim());
        }
    }

    /// A paragraph.
    fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push_str("\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
        /// All of it.
        package a:b@0.1.0;
        /// Asked.
        interface request {
          /// Who.
          enum role { user, other }
          record pair {
            /// A | B.
            left: option<u32>,
          }
          /// Reads.
          read: func(at: u32, of: pair) -> result<list<tuple<role, f32>>, string>;
        }
        /// Called.
        interface decide { use request.{pair}; on: func(p: pair); }
        world cache-policy-full { import request; export decide; }";

    #[test]
    fn a_page_has_every_comment_and_every_signature() {
        let page = reference(SMALL).unwrap();
        for expected in [
            "# `a:b@0.1.0`",
            "All of it.",
            "*The policy imports it, and calls it.*\n\nAsked.",
            "`read: func(at: u32, of: pair) -> result<list<tuple<role, f32>>, string>`\n\nReads.",
            "### enum `role`\n\nWho.\n\n`user`, `other`",
            "| `left` | `option<u32>` | A \\| B. |",
            "*A hook: the policy exports it, Refrain calls it.*\n\nCalled.",
            "- imports: `request`\n- exports: `decide`",
        ] {
            assert!(page.contains(expected), "{expected}\n{page}");
        }
        assert_eq!(page.matches("`pair`\n").count(), 1, "defined once\n{page}");
    }

    #[test]
    fn what_is_no_wit_is_refused_by_name() {
        assert!(reference("package").unwrap_err().to_string().contains("policy.wit"));
    }
}
