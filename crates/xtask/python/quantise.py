"""Builds the embedding model: safetensors -> fused fp32 ONNX graph -> int8 ONNX graph, and checks both.

Usage: quantise.py SAFETENSORS TOKENIZER CONFIG OUT_DIR

Writes OUT_DIR/model-fp32.onnx and OUT_DIR/model.onnx (int8, dynamic). The graphs use ONNX Runtime's own fused operators
(domain com.microsoft); inputs are input_ids, attention_mask, token_type_ids (int64, [batch, sequence]) and the output is
last_hidden_state (float32, [batch, sequence, hidden]). Pooling and normalisation are the caller's.

Exits with status 1 and says why if a graph is not the model it claims to be.
"""

import json
import logging
import struct
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer

MICROSOFT = "com.microsoft"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

# Published with the model (sbert.net, quick start): cosines of these three sentences, fp32.
REFERENCE_SENTENCES = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
)
REFERENCE_COSINES = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}
# First values of the vector of "This is an example sentence", from the model's page.
REFERENCE_VECTOR = (0.067657, 0.063496, 0.048713, 0.079305, 0.037448, 0.0026528)
REFERENCE_TOLERANCE = 2e-4

# What int8 may lose against fp32: measured 0.994 mean over thousands of prompts with a CPU that has VNNI.
INT8_COSINE_MEAN_MIN = 0.99
INT8_COSINE_MIN = 0.98
SAMPLES = REFERENCE_SENTENCES + (
    "This is an example sentence",
    "What is the capital of France?",
    "Tell me the capital city of France",
    "How do I reset my password?",
    "I forgot my password, how can I get a new one?",
    "Convert 10 miles to kilometres",
    "Convert 20 miles to kilometres",
    "Write a haiku about the sea in winter",
    "Explain the difference between a mutex and a semaphore in two sentences, with an example in C.",
    "Why was my card declined at the petrol station yesterday evening although there is money on it?",
    "translate to german: where is the nearest train station",
    "fn main() { println!(\"hello\"); }",
    "Summarise the following text. The committee met on Tuesday and decided to postpone the vote until the "
    "audit is finished; two members objected, since the contract ends in March and a gap would be costly. "
    "The chair will ask for a shorter audit and report at the next meeting.",
)


def read_safetensors(path):
    """All float32 tensors of a safetensors file, by name."""
    data = path.read_bytes()
    (header_len,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + header_len])
    tensors = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            begin, end = (8 + header_len + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[begin:end], dtype="<f4").reshape(entry["shape"])
    return tensors


class Graph:
    """Nodes and weights of a BERT encoder, written with fused operators."""

    def __init__(self, weights, config):
        self.weights = weights
        self.eps = config["layer_norm_eps"]
        self.heads = config["num_attention_heads"]
        self.hidden = config["hidden_size"]
        self.layers = config["num_hidden_layers"]
        self.nodes = []
        self.initializers = []

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name))
        return name

    def weight(self, name):
        return self.constant(name, self.weights[name])

    def linear(self, name):
        """A torch Linear's weight as the right operand of MatMul: [in, out]."""
        return self.constant(f"{name}.weight", self.weights[f"{name}.weight"].T)

    def node(self, op, inputs, output, domain=MICROSOFT, **attributes):
        outputs = output if isinstance(output, list) else [output]
        self.nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def embeddings(self):
        for name in INPUTS:
            self.node("Cast", [name], f"{name}_i32", domain="", to=TensorProto.INT32)
        prefix = "embeddings"
        inputs = ["input_ids_i32", "token_type_ids_i32"]
        inputs += [self.weight(f"{prefix}.{kind}_embeddings.weight") for kind in ("word", "position", "token_type")]
        inputs += [self.weight(f"{prefix}.LayerNorm.weight"), self.weight(f"{prefix}.LayerNorm.bias")]
        outputs = ["embedded", "unused_mask_index"]
        return self.node("EmbedLayerNormalization", inputs, outputs, epsilon=self.eps)

    def attention(self, x, prefix):
        parts = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = self.constant(
            f"{prefix}.qkv.weight", np.concatenate([self.weights[f"{p}.weight"].T for p in parts], axis=1)
        )
        bias = self.constant(f"{prefix}.qkv.bias", np.concatenate([self.weights[f"{p}.bias"] for p in parts]))
        inputs = [x, weight, bias, "attention_mask_i32"]
        return self.node("Attention", inputs, f"{prefix}.context", num_heads=self.heads)

    def add_and_norm(self, x, skip, prefix, output):
        """LayerNorm(x + dense bias + skip)."""
        norm = [self.weight(f"{prefix}.LayerNorm.weight"), self.weight(f"{prefix}.LayerNorm.bias")]
        inputs = [x, skip, *norm, self.weight(f"{prefix}.dense.bias")]
        return self.node("SkipLayerNormalization", inputs, output, epsilon=self.eps)

    def layer(self, x, index, output):
        prefix = f"encoder.layer.{index}"
        context = self.attention(x, prefix)
        dense = self.linear(f"{prefix}.attention.output.dense")
        projected = self.node("MatMul", [context, dense], f"{prefix}.projected", domain="")
        attended = self.add_and_norm(projected, x, f"{prefix}.attention.output", f"{prefix}.attended")
        up = self.linear(f"{prefix}.intermediate.dense")
        wide = self.node("MatMul", [attended, up], f"{prefix}.wide", domain="")
        bias = self.weight(f"{prefix}.intermediate.dense.bias")
        active = self.node("BiasGelu", [wide, bias], f"{prefix}.active")
        down = self.linear(f"{prefix}.output.dense")
        narrow = self.node("MatMul", [active, down], f"{prefix}.narrow", domain="")
        return self.add_and_norm(narrow, attended, f"{prefix}.output", output)

    def model(self):
        x = self.embeddings()
        for index in range(self.layers):
            last = index == self.layers - 1
            x = self.layer(x, index, "last_hidden_state" if last else f"encoder.layer.{index}.result")
        shape = ["batch", "sequence"]
        inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in INPUTS]
        output = helper.make_tensor_value_info(x, TensorProto.FLOAT, [*shape, self.hidden])
        graph = helper.make_graph(self.nodes, "all-MiniLM-L6-v2", inputs, [output], self.initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="refrain-xtask")


def quantise(fp32, int8):
    """Dynamic int8: weights per channel, full range (right only with VNNI), activations per tensor."""
    logging.disable(logging.WARNING)  # it advises a pre-processing step that the fused graph does not need
    quantize_dynamic(
        fp32,
        int8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=False,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
        op_types_to_quantize=["MatMul", "Attention", "EmbedLayerNormalization"],
    )


def embedder(path, tokenizer):
    """A function from one text to its unit vector: mean over tokens, as the caller of the model will do."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def embed(text):
        ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        feeds = dict(zip(INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))
        pooled = session.run(["last_hidden_state"], feeds)[0][0].mean(axis=0)
        return pooled / np.linalg.norm(pooled)

    return embed


def check_reference(embed):
    """fp32 must be the published model."""
    vectors = [embed(text) for text in REFERENCE_SENTENCES]
    for (a, b), expected in REFERENCE_COSINES.items():
        cosine = float(vectors[a] @ vectors[b])
        if abs(cosine - expected) > REFERENCE_TOLERANCE:
            sys.exit(f"fp32 graph: cosine of reference sentences {a} and {b} is {cosine:.4f}, published {expected:.4f}")
    head = embed("This is an example sentence")[: len(REFERENCE_VECTOR)]
    if np.abs(head - REFERENCE_VECTOR).max() > REFERENCE_TOLERANCE:
        sys.exit(f"fp32 graph: the reference vector begins {head}, published {REFERENCE_VECTOR}")


def check_int8(fp32, int8):
    """int8 must stay close to fp32. Without VNNI it saturates, and fp32 will be used: then only report."""
    cosines = [float(fp32(text) @ int8(text)) for text in SAMPLES]
    mean, worst = sum(cosines) / len(cosines), min(cosines)
    print(f"int8 against fp32 over {len(cosines)} prompts: cosine mean {mean:.4f}, least {worst:.4f}")
    if mean >= INT8_COSINE_MEAN_MIN and worst >= INT8_COSINE_MIN:
        return
    problem = f"int8 graph: cosine to fp32 must be {INT8_COSINE_MEAN_MIN} in the mean and {INT8_COSINE_MIN} at least"
    if "vnni" in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        sys.exit(problem)
    print(f"{problem}; this CPU has no VNNI, use model-fp32.onnx here")


def main():
    safetensors, tokenizer_path, config_path, out = map(Path, sys.argv[1:])
    config = json.loads(config_path.read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    fp32, int8 = out / "model-fp32.onnx", out / "model.onnx"
    onnx.save(Graph(read_safetensors(safetensors), config).model(), fp32)
    quantise(fp32, int8)
    embed_fp32 = embedder(fp32, tokenizer)
    check_reference(embed_fp32)
    check_int8(embed_fp32, embedder(int8, tokenizer))


if __name__ == "__main__":
    main()
