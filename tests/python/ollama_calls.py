"""Calls of the official ollama client. In: a job on stdin. Out: what it parsed, as JSON on stdout."""

import json
import sys

import ollama

job = json.load(sys.stdin)
statuses = []
hooks = {"response": [lambda response: statuses.append(response.headers.get("cache-status", ""))]}
client = ollama.Client(host=job["base_url"], event_hooks=hooks, timeout=60)


def joined(parts):
    """The whole answer that a stream adds up to: its last part with all of the text."""
    whole = dict(parts[-1])
    if whole.get("message"):
        whole["message"] = dict(whole["message"], content="".join(part["message"]["content"] for part in parts))
    else:
        whole["response"] = "".join(part["response"] for part in parts)
    return whole


def call(name, arguments):
    result = getattr(client, name)(**arguments)
    if arguments.get("stream"):
        parsed = [part.model_dump(mode="json") for part in result]
        whole = joined(parsed)
    else:
        parsed = whole = result.model_dump(mode="json")
    return {"cache_status": statuses[-1], "parsed": parsed, "whole": whole}


results = []
for one in job["jobs"]:
    try:
        results.append(call(one["call"], one["arguments"]))
    except ollama.ResponseError as error:
        results.append({"error": type(error).__name__, "status": error.status_code, "body": str(error)})
json.dump(results, sys.stdout)
