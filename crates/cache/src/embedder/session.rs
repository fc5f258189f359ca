//! One model, read once, and the ONNX sessions opened from it. The only file that knows `fastembed` and `ort`.

use std::path::{Path, PathBuf};

use fastembed::{
    InitOptionsUserDefined, Pooling, QuantizationMode, TextEmbedding, TokenizerFiles,
    UserDefinedEmbeddingModel,
};
use ort::environment::Environment;
use parking_lot::Mutex;
use refrain_core::settings;

use super::{DIMENSIONS, EmbedError, Embedding};

/// The int8 graph: four times smaller and faster, on CPUs that have VNNI.
const MODEL_INT8: &str = "model.onnx";

/// The graph for other CPUs: their int8 products saturate, which bends the vectors.
const MODEL_FP32: &str = "model-fp32.onnx";

/// A process holds one ONNX Runtime; where it came from is remembered, since it can't be changed.
static RUNTIME: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// Everything that opens a session.
pub(super) struct Model {
    dir: PathBuf,
    environment: Environment,
    files: UserDefinedEmbeddingModel,
    window_tokens: usize,
    identity: [u8; 32],
}

/// A session and its tokenizer; used by one thread.
pub(super) struct Session {
    model: TextEmbedding,
}

impl Model {
    pub(super) fn read(settings: &settings::Embedder) -> Result<Self, EmbedError> {
        let dir = &settings.model_dir;
        let name = graph_name(dir);
        let graph = read(dir, name)?;
        let tokenizer = TokenizerFiles {
            tokenizer_file: read(dir, "tokenizer.json")?,
            config_file: read(dir, "config.json")?,
            special_tokens_map_file: read(dir, "special_tokens_map.json")?,
            tokenizer_config_file: read(dir, "tokenizer_config.json")?,
        };
        let identity = identity(name, &graph, &tokenizer.tokenizer_file, settings.window_tokens);
        let files = UserDefinedEmbeddingModel::new(graph, tokenizer)
            .with_pooling(Pooling::Mean)
            .with_quantization(QuantizationMode::Dynamic);
        Ok(Self {
            dir: dir.clone(),
            environment: environment(&settings.runtime_library)?,
            files,
            window_tokens: settings.window_tokens,
            identity,
        })
    }

    pub(super) fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// The same without the rest: nothing is loaded, and no runtime is needed.
    pub(super) fn identity_in(settings: &settings::Embedder) -> Result<[u8; 32], EmbedError> {
        let dir = &settings.model_dir;
        let name = graph_name(dir);
        Ok(identity(name, &read(dir, name)?, &read(dir, "tokenizer.json")?, settings.window_tokens))
    }

    /// A session that has embedded a text, so that its first caller doesn't pay for its start.
    pub(super) fn open(&self) -> Result<Session, EmbedError> {
        let options = InitOptionsUserDefined::new()
            .with_environment(self.environment.clone())
            .with_max_length(self.window_tokens)
            .with_intra_threads(1)
            .with_session_config("session.intra_op.allow_spinning", "0")
            .with_session_config("session.inter_op.allow_spinning", "0");
        let model = TextEmbedding::try_new_from_user_defined(self.files.clone(), options)
            .map_err(|error| self.broken(error.to_string()))?;
        let mut session = Session { model };
        match session.embed("warm up") {
            Ok(Some(_)) => Ok(session),
            Ok(None) => Err(self.broken("its window is too small".into())),
            Err(reason) => Err(self.broken(reason)),
        }
    }

    fn broken(&self, reason: String) -> EmbedError {
        EmbedError::Model { path: self.dir.display().to_string(), reason }
    }
}

impl Session {
    /// None when the text is beyond the window: its vector would stand for its beginning only.
    pub(super) fn embed(&mut self, text: &str) -> Result<Option<Embedding>, String> {
        let encoding = self.model.tokenizer.encode(text, true).map_err(|e| e.to_string())?;
        if !encoding.get_overflowing().is_empty() {
            return Ok(None);
        }
        let vectors = self.model.embed([text], None).map_err(|e| e.to_string())?;
        let vector = vectors.first().ok_or("no vector")?;
        let embedding = Embedding::normalised(vector)
            .ok_or_else(|| format!("not a vector of {DIMENSIONS} dimensions but of {}", vector.len()))?;
        Ok(Some(embedding))
    }
}

/// int8 where this CPU can, or where there is nothing else.
fn graph_name(dir: &Path) -> &'static str {
    if has_vnni() || !dir.join(MODEL_FP32).is_file() { MODEL_INT8 } else { MODEL_FP32 }
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    std::arch::is_x86_feature_detected!("avx512vnni") || std::arch::is_x86_feature_detected!("avxvnni")
}

/// Other architectures' int8 products don't saturate.
#[cfg(not(target_arch = "x86_64"))]
fn has_vnni() -> bool {
    true
}

fn read(dir: &Path, name: &str) -> Result<Vec<u8>, EmbedError> {
    let path = dir.join(name);
    std::fs::read(&path).map_err(|source| EmbedError::ModelFile { path: path.display().to_string(), source })
}

fn identity(name: &str, graph: &[u8], tokenizer: &[u8], window_tokens: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("refrain 2026 embedder identity v1");
    for part in [name.as_bytes(), graph, tokenizer, &(window_tokens as u64).to_le_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn environment(library: &Path) -> Result<Environment, EmbedError> {
    let failed = |reason: String| EmbedError::Runtime { path: library.display().to_string(), reason };
    let mut runtime = RUNTIME.lock();
    if let Some((loaded, environment)) = runtime.as_ref() {
        return if loaded == library {
            Ok(environment.clone())
        } else {
            Err(EmbedError::RuntimeChanged { loaded: loaded.display().to_string() })
        };
    }
    let environment = ort::init_from(library)
        .map_err(|e| failed(e.to_string()))?
        .with_telemetry(false)
        .build()
        .map_err(|e| failed(e.to_string()))?;
    *runtime = Some((library.to_owned(), environment.clone()));
    Ok(environment)
}
