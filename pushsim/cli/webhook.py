"""`pushsim webhook`: the admission webhook that sets visibility by the nature of a service."""

from __future__ import annotations

from typing import Annotated

import typer

from pushsim.cli.options import note


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
    from pushsim.webhook import webhook as run

    objects = run(
        policy, cert=cert, key=key, host=host, port=port, manifests=manifests, namespace=namespace, image=image,
        ca_bundle=ca_bundle, started=lambda listening: note(f"listening on https://{host}:{listening}/mutate"),
    )  # fmt: skip
    if manifests:
        import yaml

        typer.echo(yaml.safe_dump_all(objects, sort_keys=False, width=120), nl=False)
