"""The webhook from a policy's name or file: served, or the manifests that install it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pushsim import policies
from pushsim.errors import InputError, Problem
from pushsim.manifests.document import parse_one
from pushsim.policies import Policy


def webhook(
    policy: str | Path,
    *,
    cert: str | Path | None = None,
    key: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8443,
    manifests: bool = False,
    namespace: str = "pushsim",
    image: str = "pushsim",
    ca_bundle: str | Path | None = None,
    started: Callable[[int], None] = lambda _: None,
) -> list[dict[str, Any]]:
    """Serve the admission webhook of a policy until interrupted; or, with `manifests`, give what installs it instead.

    policy:    a YAML file with a list of policies, a name, or `module:function`; one that alters what is written.
    cert, key: PEM files; a renewed pair is taken for new connections. host, port: to listen on. started: told the port.
    namespace, image, ca_bundle: of the manifests; without a bundle, cert-manager makes the certificate.

    Raises InputError, and EnvironmentProblem if the port is taken.
    """
    text = str(policy)
    chosen = _policy(text)
    if manifests:
        return _manifests(text, namespace, image, ca_bundle)
    if not cert or not key:
        remedy = "the API server speaks TLS only: give --cert and --key"
        raise InputError(Problem("no certificate given", field="--cert, --key", remedy=remedy))
    from pushsim.webhook.server import serve, tls

    tls(str(cert), str(key))  # says what is wrong before anything starts
    asyncio.run(serve(chosen, str(cert), str(key), host, port, started))
    return []


def _policy(text: str) -> Policy:
    if Path(text).is_file():
        found = policies.parse(parse_one(Path(text).read_text(encoding="utf-8"), text), text)
    else:
        found = policies.resolve(text)
    if not found.admits:
        remedy = "export-to does; what a policy installs is applied, not admitted"
        raise InputError(Problem(f"{text} alters nothing that is written", field="--policy", remedy=remedy))
    return found


def _manifests(policy: str, namespace: str, image: str, ca_bundle: str | Path | None) -> list[dict[str, Any]]:
    from pushsim.webhook.manifests import manifests

    if Path(policy).is_file():
        text = Path(policy).read_text(encoding="utf-8")
    else:
        text = "".join(f"- {part.strip()}\n" for part in policy.split("+"))
    try:
        bundle = Path(ca_bundle).read_bytes() if ca_bundle else None
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(ca_bundle), "--ca-bundle")) from None
    return manifests(text, namespace=namespace, image=image, ca_bundle=bundle)
