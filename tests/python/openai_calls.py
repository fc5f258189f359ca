"""Calls of the official openai client. In: a job on stdin. Out: what it parsed, as JSON on stdout."""

import json
import sys

import openai

job = json.load(sys.stdin)
client = openai.OpenAI(base_url=job["base_url"] + "/v1", api_key=job.get("api_key", "none"), timeout=60)
APIS = {"chat": client.chat.completions, "completions": client.completions, "embeddings": client.embeddings}


def joined(chunks):
    """The whole answer that a stream adds up to, in the shape of an unstreamed one."""
    whole = {"choices": [{"message": {"content": ""}, "text": "", "finish_reason": None}], "usage": None}
    choice = whole["choices"][0]
    for chunk in chunks:
        whole["usage"] = chunk.get("usage") or whole["usage"]
        for part in chunk["choices"]:
            choice["message"]["content"] += (part.get("delta") or {}).get("content") or ""
            choice["text"] += part.get("text") or ""
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
    return whole


def call(api, arguments):
    raw = APIS[api].with_raw_response.create(**arguments)
    result = raw.parse()
    if arguments.get("stream"):
        parsed = [chunk.model_dump(mode="json") for chunk in result]
        whole = joined(parsed)
    else:
        parsed = whole = result.model_dump(mode="json")
    return {"cache_status": raw.headers.get("cache-status", ""), "parsed": parsed, "whole": whole}


results = []
for one in job["jobs"]:
    try:
        results.append(call(one["call"], one["arguments"]))
    except openai.APIStatusError as error:
        results.append({"error": type(error).__name__, "status": error.status_code, "body": error.body})
json.dump(results, sys.stdout)
