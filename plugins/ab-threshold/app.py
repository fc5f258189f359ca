"""Two thresholds of similarity, by user, so that operators can compare them on their own traffic.

A user always has the same variant. The label `variant` shows which; its values are counted with the outcomes.
"""

import hashlib
import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import request, route
from wit_world.imports.values import Decision_Cache

A, B = "a", "b"
KEYS = {"a", "b", "b_share", "salt"}


class Experiment:
    """Which threshold whom."""

    def __init__(self, config: dict):
        unknown = sorted(config.keys() - KEYS)
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(KEYS))}")
        self.thresholds = {A: fraction(config, A), B: fraction(config, B)}
        self.b_share = fraction(config, "b_share", 0.5)
        # Another salt draws the users anew.
        self.salt = str(config.get("salt", "")).encode()

    def variant(self, tenant: str, user: str) -> str:
        name = tenant.encode() + b"\0" + user.encode()
        digest = hashlib.sha256(self.salt + b"\0" + name).digest()
        drawn = int.from_bytes(digest[:4], "big") / 2**32
        return B if drawn < self.b_share else A


def fraction(config: dict, name: str, default: float | None = None) -> float:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"{name}: a number from 0 to 1 is needed")
    return float(value)


# An instance is configured once, before any other call.
experiment: Experiment


class Setup(exports.Setup):
    def configure(self, config: str) -> exports.setup.About:
        global experiment
        try:
            experiment = Experiment(json.loads(config))
        except ValueError as error:
            raise Err(str(error)) from error
        return exports.setup.About(
            name="ab-threshold",
            version="0.1.0",
            needs=[],
            metrics=[],
            reasons=[],
            labels=[exports.setup.MetricLabel("variant", [A, B])],
        )


class Decide(exports.Decide):
    def on_request(self, req) -> Decision_Cache:
        plan = route.defaults()
        user = request.user()
        # Without a user there is nobody to compare, and without a semantic tier nothing.
        if user is not None and plan.semantic is not None:
            variant = experiment.variant(req.tenant, user)
            plan.semantic.threshold = experiment.thresholds[variant]
            plan.labels.append(("variant", variant))
        return Decision_Cache(plan)
