"""`pushsim webhook`: the admission webhook that sets visibility by the nature of a service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pushsim.cli.options import note

if TYPE_CHECKING:
    from pushsim.policies import Policy


def webhook(
    policy: Annotated[str, typer.Option("--policy", "-p", help="A YAML list of policies, a name or module:function.")],
    cert: Annotated[str | None, typer.Option("--cert", help="PEM certificate (chain).")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Its PEM private key.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on.")] = 8443,
    manifests: Annotated[bool, typer.Option("--manifests", help="Print what installs it, and end.")] = False,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where --manifests puts it.")] = "pushsim",
    image: Annotated[str, typer.Option("--image", help="Image of --manifests, with pushsim[webhook].")] = "pushsim",
    ca_bundle: Annotated[
        str | None, typer.Option("--ca-bundle", help="PEM of your CA for --manifests. [default: cert-manager]")
    ] = None,
) -> None:
    """Set exportTo of Services as they are created, by the same policy that `compare` runs. It fails open.

    Example: pushsim webhook --policy visibility.yaml --cert tls.crt --key tls.key --host 0.0.0.0

    Example: pushsim webhook --policy visibility.yaml --manifests --image example.com/pushsim | kubectl apply -f -
    """
    from pushsim.errors import InputError, Problem

    chosen = _policy(policy)
    if manifests:
        _print_manifests(policy, namespace, image, ca_bundle)
        return
    if not cert or not key:
        remedy = "the API server speaks TLS only: give --cert and --key"
        raise InputError(Problem("no certificate given", field="--cert, --key", remedy=remedy))
    import asyncio

    from pushsim.webhook.server import serve, tls

    tls(cert, key)  # says what is wrong before anything starts
    started = lambda listening: note(f"listening on https://{host}:{listening}/mutate")  # noqa: E731
    asyncio.run(serve(chosen, cert, key, host, port, started))


def _policy(text: str) -> Policy:
    from pushsim import policies
    from pushsim.errors import InputError, Problem
    from pushsim.manifests.document import parse_one

    if Path(text).is_file():
        found = policies.parse(parse_one(Path(text).read_text(encoding="utf-8"), text), text)
    else:
        found = policies.resolve(text)
    if not found.admits:
        remedy = "export-to does; what a policy installs is applied, not admitted"
        raise InputError(Problem(f"{text} alters nothing that is written", field="--policy", remedy=remedy))
    return found


def _print_manifests(policy: str, namespace: str, image: str, ca_bundle: str | None) -> None:
    import yaml

    from pushsim.errors import InputError, Problem
    from pushsim.webhook.manifests import manifests

    text = (
        Path(policy).read_text(encoding="utf-8")
        if Path(policy).is_file()
        else "".join(f"- {part.strip()}\n" for part in policy.split("+"))
    )
    try:
        bundle = Path(ca_bundle).read_bytes() if ca_bundle else None
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(ca_bundle), "--ca-bundle")) from None
    objects = manifests(text, namespace=namespace, image=image, ca_bundle=bundle)
    typer.echo(yaml.safe_dump_all(objects, sort_keys=False, width=120), nl=False)
