"""Random cases: a seeded mesh and seeded changes to it, as a case file, to hold the model against a real istiod.

`random_case` draws from everything that decides who is pushed: services of several protocols, visibilities and kinds of
address, endpoints, Sidecars with and without selectors, gateways, routes, destination rules, service and workload
entries, policies; with `kinds="core"` only from the kinds that the recorded random-NNN cases have. Changes create,
alter, delete, bring back and touch without altering; some are made together. All of it comes from the seed alone.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pushsim.randomcase import shapes
from pushsim.randomcase.changes import World
from pushsim.randomcase.objects import Kinds
from pushsim.randomcase.shapes import Json

__all__ = ["Kinds", "random_case", "to_yaml"]


def random_case(seed: int, steps: int = 24, kinds: Kinds = "all") -> Json:
    """A case as its file holds it (`vectors/README.md`), the same for the same arguments on any machine.

    steps: how many changes. kinds: "all", or "core" for only those of the recorded random-NNN cases.
    A step that deletes what the same step writes does only the last of the two.
    """
    world = World(seed, kinds)
    settings = shapes.settings(world.random) if world.wide else {}
    world.build()
    manifests = list(world.objects.values())
    proxies = list(world.proxies)
    about = f"Random mesh and random changes, seed {seed}, {kinds} kinds."
    changes = [world.step(number) for number in range(steps)]
    return {"about": about, **settings, "manifests": manifests, "proxies": proxies, "steps": changes}


_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")


def to_yaml(value: Any, indent: str = "") -> str:
    """Plain data as block YAML, strings quoted: what `random_case` returns, as a file that people can read."""
    lines: list[str] = []
    for key, item in value.items() if isinstance(value, dict) else ((None, item) for item in value):
        lead = "- " if key is None else f"{key if _PLAIN.fullmatch(key) else json.dumps(key)}:"
        if not isinstance(item, dict | list) or not item:
            lines.append(f"{indent}{lead.rstrip()} {json.dumps(item, ensure_ascii=False)}")
        elif key is None:
            block = to_yaml(item, indent + "  ")
            lines.append(f"{indent}- {block[len(indent) + 2 :].rstrip()}")
        else:
            lines.append(f"{indent}{lead}\n{to_yaml(item, indent + '  ').rstrip()}")
    return "\n".join(lines) + "\n"
