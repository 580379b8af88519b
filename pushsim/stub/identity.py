"""Who a proxy is: tokens of service accounts, and what the API server says of them to an istiod that asks.

istiod sends secrets only to proxies that it knows the identity of. On a plaintext stream that takes a token, and
XDS_AUTH_PLAINTEXT; in a cluster it is mTLS. Source: security/pkg/server/ca/authenticate/kubeauth/kube_jwt.go.
"""

from __future__ import annotations

import base64
import json
from typing import Any

_PREFIX = "system:serviceaccount:"


def token(namespace: str, account: str) -> str:
    """A token of a service account, as Kubernetes projects it, but for its signature."""
    claims = {"sub": f"{_PREFIX}{namespace}:{account}", "aud": ["istio-ca"], "iss": "pushsim"}
    return ".".join((_encoded({"alg": "none"}), _encoded(claims), ""))


def token_review(body: dict[str, Any]) -> dict[str, Any]:
    """What is made of a TokenReview."""
    user = _user(str((body.get("spec") or {}).get("token") or ""))
    if user is None:
        return {**body, "status": {"authenticated": False, "error": "no token of ours"}}
    namespace = user.removeprefix(_PREFIX).partition(":")[0]
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    known = {"username": user, "uid": user, "groups": groups}
    return {**body, "status": {"authenticated": True, "user": known, "audiences": ["istio-ca"]}}


def access_review(body: dict[str, Any]) -> dict[str, Any]:
    """What is made of a SubjectAccessReview: gateways are installed with the right to read secrets where they are."""
    return {**body, "status": {"allowed": True}}


def _encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _user(text: str) -> str | None:
    parts = text.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    user = claims.get("sub") if isinstance(claims, dict) else None
    return user if isinstance(user, str) and user.startswith(_PREFIX) else None
