"""Calls of the official anthropic client. In: a job on stdin. Out: what it parsed, as JSON on stdout."""

import json
import sys

import anthropic

job = json.load(sys.stdin)
client = anthropic.Anthropic(base_url=job["base_url"], api_key="none", timeout=60)


def streamed(arguments):
    with client.messages.stream(**arguments) as stream:
        events = [event.model_dump(mode="json") for event in stream]
        whole = stream.get_final_message().model_dump(mode="json")
        status = stream.response.headers.get("cache-status", "")
    # Pings only keep a connection alive.
    parsed = [event for event in events if event["type"] != "ping"]
    return {"cache_status": status, "parsed": parsed, "whole": whole}


def whole(arguments):
    raw = client.messages.with_raw_response.create(**arguments)
    parsed = raw.parse().model_dump(mode="json")
    return {"cache_status": raw.headers.get("cache-status", ""), "parsed": parsed, "whole": parsed}


results = []
for one in job["jobs"]:
    try:
        results.append((streamed if one.get("stream") else whole)(one["arguments"]))
    except anthropic.APIStatusError as error:
        results.append({"error": type(error).__name__, "status": error.status_code, "body": error.body})
json.dump(results, sys.stdout)
