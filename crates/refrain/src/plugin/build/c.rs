//! C: every `*.c` of the folder with Zig's clang, then wasm-tools.
//!
//! `bindings/` holds what wit-bindgen made of `wit/`, so that only who changes `wit/` needs wit-bindgen; a hash in it tells
//! whether the two still belong together.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::tool::Tool;
use super::{Project, Steps, WORLD};

const BINDINGS: &str = "bindings";
/// In the policy's folder.
pub(in crate::plugin) const STAMP_FILE: &str = "bindings/wit.blake3";
/// The bindings refer to it so that a linker keeps an object file with the types, which wasm-tools adds here instead.
const TYPES_STUB: &str = "void __component_type_object_force_link_policy(void) {}\n";
const COMPILE: [&str; 10] = [
    "cc",
    "-target",
    "wasm32-wasi",
    "-mexec-model=reactor",
    "-std=c11",
    "-Oz",
    "-Wall",
    "-Wextra",
    "-Wl,--strip-all",
    // Zig's own is 16 MiB, which every instance would have.
    "-Wl,-z,stack-size=131072",
];

pub(super) fn build(project: &Project, staging: &Path, component: &Path) -> Result<()> {
    let (mut zig, wasm_tools) = (Tool::Zig.command()?, || Tool::WasmTools.command());
    let (mut embed, mut componentize) = (wasm_tools()?, wasm_tools()?);
    let stale = !are_fresh(project)?;
    let mut steps = Steps::of(if stale { 4 } else { 3 });
    if stale {
        generate(project, &mut steps)?;
    }
    let [stub, module, typed] = ["types.c", "module.wasm", "typed.wasm"].map(|name| staging.join(name));
    fs::write(&stub, TYPES_STUB)?;
    zig.current_dir(&project.dir)
        .args(COMPILE)
        .args(sources(&project.dir)?)
        .arg(&stub)
        .arg("-o")
        .arg(&module);
    steps.run("zig cc (half a minute the first time)", &mut zig)?;
    embed
        .args(["component", "embed", "--world", WORLD])
        .arg(project.wit())
        .arg(&module)
        .arg("-o")
        .arg(&typed);
    steps.run("wasm-tools component embed", &mut embed)?;
    componentize.args(["component", "new"]).arg(&typed).arg("-o").arg(component);
    steps.run("wasm-tools component new", &mut componentize)
}

/// Sorted, so that the same folder gives the same component.
fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files_ending(dir, "c")?;
    files.push(dir.join(BINDINGS).join(format!("{WORLD}.c")));
    Ok(files)
}

fn are_fresh(project: &Project) -> Result<bool> {
    let stamp = fs::read_to_string(project.dir.join(STAMP_FILE)).unwrap_or_default();
    Ok(stamp.trim_end() == hash(&project.wit())?)
}

fn generate(project: &Project, steps: &mut Steps) -> Result<()> {
    let mut generator = Tool::WitBindgen
        .command()
        .with_context(|| format!("{BINDINGS}/ is not what wit/ says (any more): it must be generated"))?;
    let bindings = project.dir.join(BINDINGS);
    generator
        .args(["c", "--world", WORLD, "--no-object-file", "--out-dir"])
        .arg(&bindings)
        .arg(project.wit());
    steps.run("wit-bindgen c", &mut generator)?;
    fs::write(project.dir.join(STAMP_FILE), hash(&project.wit())? + "\n")?;
    Ok(())
}

/// Of all WIT files, with their names.
pub(in crate::plugin) fn hash(dir: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    add_dir(dir, dir, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn add_dir(root: &Path, dir: &Path, hasher: &mut blake3::Hasher) -> Result<()> {
    for file in files_ending(dir, "wit")? {
        let text = fs::read(&file).with_context(|| format!("can't read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file).to_string_lossy();
        for part in [name.as_bytes(), &text] {
            hasher.update(&part.len().to_le_bytes()).update(part);
        }
    }
    for sub in entries(dir)?.iter().filter(|path| path.is_dir()) {
        add_dir(root, sub, hasher)?;
    }
    Ok(())
}

fn files_ending(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = entries(dir)?;
    files.retain(|path| path.is_file() && path.extension().is_some_and(|found| found == extension));
    Ok(files)
}

/// Sorted.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
