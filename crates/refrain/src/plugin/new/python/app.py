"""What this policy is for."""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import request, route, values

# Every reason that a decision may give is declared in `about`.
TIME_SENSITIVE = "time_sensitive"
QUESTION_BYTES_MAX = 2048

# What the operator says: `config = { ttl_s = 600 }` in `[plugin.NAME]`.
settings = {"ttl_s": 600}


class Setup(exports.Setup):
    def configure(self, config: str) -> exports.setup.About:
        """Called for each new instance. `Err` refuses the configuration."""
        given = json.loads(config)
        if unknown := given.keys() - settings.keys():
            raise Err(f"unknown: {', '.join(sorted(unknown))}")
        settings.update(given)
        if type(settings["ttl_s"]) is not int or settings["ttl_s"] < 0:
            raise Err("ttl_s: a number of seconds is needed")
        return exports.setup.About(
            name="{{name}}",
            version="0.1.0",
            needs=[],
            metrics=[],
            reasons=[TIME_SENSITIVE],
            labels=[],
        )


class Decide(exports.Decide):
    def on_request(self, req) -> values.Decision:
        """Called once a request. The route's own plan is the start: take it, and change what the policy is about."""
        plan = route.defaults()
        if "today" in question(req).lower():
            return values.Decision_Bypass(values.Bypass(TIME_SENSITIVE, plan.upstream, plan.labels))
        # Named, not copied: Refrain reads the header itself.
        plan.key.add.append(values.KeyPart_Header("x-project"))
        plan.fresh.ttl_s = min(plan.fresh.ttl_s, settings["ttl_s"])
        return values.Decision_Cache(plan)


def question(req) -> str:
    """The last message."""
    if req.message_count == 0:
        return ""
    return request.message_text(req.message_count - 1, QUESTION_BYTES_MAX) or ""
