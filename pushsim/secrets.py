"""Secrets that hold certificates: which Secret is meant by a name that a proxy asks istiod for, and what is in it.

Sources: pilot/pkg/model/credentials/resource.go (ParseResourceName), pilot/pkg/credentials/kube/secrets.go
(GetCertInfo, GetCaCert).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pushsim.mesh import Object, Ref

#: What the name of a secret ends with that is asked for an authority's certificate.
AUTHORITY = "-cacert"
_PREFIX = "kubernetes://"

#: Bytes of a chain of two RSA certificates of 2048 bits in PEM, of a key, and of an authority's certificate.
_USUAL = {"tls.crt": 3600, "tls.key": 1700, "ca.crt": 1200}

#: A Secret's `data`.
Data = Mapping[str, Any]


class Pair(NamedTuple):
    """A certificate chain, its key, and a staple, b"" if there is none."""

    chain: bytes
    key: bytes
    staple: bytes


class Trusted(NamedTuple):
    """An authority's certificate, and its list of what is revoked, b"" if there is none."""

    certificate: bytes
    revoked: bytes


def usual(text: str) -> dict[str, Any]:
    """What is in a Secret of a certificate that is not known: its type, and data of usual length made of a text."""
    data = {key: (text * size)[:size] for key, size in _USUAL.items()}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"type": "kubernetes.io/tls", "data": encoded}


def secret_of(name: str, namespace: str) -> Ref | None:
    """The Secret that a name means to a proxy of a namespace, as the name has it; None if it may not have that."""
    if not name.startswith(_PREFIX):
        return None
    first, slash, rest = name.removeprefix(_PREFIX).partition("/")
    if not slash:
        return Ref("Secret", namespace, first)
    return Ref("Secret", namespace, rest) if first == namespace else None


def related(name: str, other: str) -> bool:
    """Whether a change of the Secret `other` concerns who asks for `name`: it, or that with or without `-cacert`."""
    return name == other or name.removesuffix(AUTHORITY) == other or name + AUTHORITY == other


def held(ref: Ref, get: Callable[[Ref], Object | None]) -> Object | None:
    """The Secret that istiod answers a name with, None if there is none, or not what it needs."""
    found = get(ref)
    if not ref.name.endswith(AUTHORITY):
        return found if found is not None and pair(found.body.get("data") or {}) is not None else None
    if found is None:
        found = get(ref._replace(name=ref.name.removesuffix(AUTHORITY)))
    return found if found is not None and trusted(found.body.get("data") or {}) is not None else None


def pair(data: Data) -> Pair | None:
    """A certificate with its key."""
    for chain, key, staple in (("cert", "key", ""), ("tls.crt", "tls.key", "tls.ocsp-staple")):
        if (found := _bytes(data, chain)) and (of := _bytes(data, key)):
            return Pair(found, of, _bytes(data, staple))
    return None


def trusted(data: Data) -> Trusted | None:
    """An authority's certificate."""
    for certificate, revoked in (("cacert", "crl"), ("ca.crt", "ca.crl")):
        if found := _bytes(data, certificate):
            return Trusted(found, _bytes(data, revoked))
    return None


def _bytes(data: Data, key: str) -> bytes:
    try:
        return base64.b64decode(str(data.get(key) or ""), validate=True)
    except (ValueError, binascii.Error):
        return b""
