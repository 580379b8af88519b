"""A recommendation as it is written: YAML to apply, and plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from pushsim.figures import amount
from pushsim.mesh import Object

if TYPE_CHECKING:
    from pushsim.recommend import Proposal, Recommendation


def _applicable(subject: Object) -> dict[str, Any]:
    """The manifest without what the API server keeps of it."""
    body = {key: value for key, value in subject.body.items() if key != "status"}
    kept = ("name", "namespace", "labels", "annotations")
    return {**body, "metadata": {key: subject.metadata[key] for key in kept if subject.metadata.get(key)}}


def yaml_of(found: Recommendation) -> str:
    """The objects as YAML, ready to apply, each with what it saves and risks as a comment."""
    parts = []
    for proposal in found.proposals:
        body = yaml.safe_dump(_applicable(proposal.subject), sort_keys=False, allow_unicode=True, width=120)
        parts.append("".join(f"# {line}\n" for line in _about(proposal)) + body)
    return "---\n".join(parts) or "# nothing to propose\n"


def _about(proposal: Proposal) -> list[str]:
    saves = (
        f"saves {amount(proposal.saved_bytes)} of configuration, {proposal.spared} proxy pushes if each service changes"
    )
    if proposal.risk is None:
        return [f"{saves}; {proposal.proxies} proxies hold it no more"]
    return [f"{saves}; {proposal.proxies} proxies, {proposal.hosts} hosts, {proposal.calls} observed calls kept",
            f"risk: {proposal.risk}"]  # fmt: skip


def to_json(found: Recommendation) -> dict[str, Any]:
    """The whole as plain values."""
    return {
        "bytes_before": found.bytes_before,
        "bytes_after": found.bytes_after,
        "pushes_before": found.pushes_before,
        "pushes_after": found.pushes_after,
        "coverage": round(found.coverage, 9),
        "proposals": [
            {
                "object": str(each.subject.ref),
                "proxies": each.proxies,
                "hosts": each.hosts,
                "saved_bytes": each.saved_bytes,
                "spared": each.spared,
                "calls": each.calls,
                "risk": {
                    "unseen_share": each.risk.unseen_share,
                    "unseen_per_day": each.risk.unseen_per_day,
                    "rare": list(each.risk.rare),
                    "silent": each.risk.silent,
                }
                if each.risk
                else None,
                "manifest": _applicable(each.subject),
            }
            for each in found.proposals
        ],
        "left_out": [{"what": what, "why": why} for what, why in found.left_out],
    }
