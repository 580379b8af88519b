"""Retry policies of routes.

Source: pilot/pkg/networking/core/route/retry/retry.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any as Json

from envoy_data_plane.envoy.config.route.v3 import (
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryHostPredicate,
    RetryPolicyRetryPriority,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import PreviousPrioritiesConfig

from pushsim.mesh import truth
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import duration, made, packed, sealed

Spec = Mapping[str, Json]
_STATUSES = frozenset(str(status.value) for status in HTTPStatus)
_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"


def retry_policy(spec: Spec | None, sizing: Sizing, *, hashed: bool = False) -> RetryPolicy | None:
    """The retry policy of a route; istiod has one of its own where the configuration has none."""
    if spec is not None and int(spec.get("attempts") or 0) <= 0:
        return None
    spread = not hashed or sizing.hashed_spread
    if spec is None:
        return _sealed_retry_policy(sizing.retries_503, spread)
    policy = _retry_policy(sizing.retries_503, spread)
    policy.num_retries = int(spec["attempts"])
    if spec.get("retryOn"):
        parts = [part.strip() for part in str(spec["retryOn"]).split(",") if part.strip()]
        codes = [int(part) for part in parts if part in _STATUSES]
        names = ",".join(part for part in parts if part not in _STATUSES)
        if codes and "retriable-status-codes" not in names:
            names += ",retriable-status-codes"
        policy.retry_on, policy.retriable_status_codes = names, codes
    if spec.get("perTryTimeout"):
        policy.per_try_timeout = duration(spec["perTryTimeout"])
    if "retries.backoff" in sizing.reads:
        if spec.get("retryIgnorePreviousHosts") is not None:
            policy.retry_host_predicate = _spread() if truth(spec["retryIgnorePreviousHosts"], False) else []
        if spec.get("backoff"):
            policy.retry_back_off = made(RetryPolicyRetryBackOff, base_interval=duration(spec["backoff"]))
    if truth(spec.get("retryRemoteLocalities"), False):
        priorities = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
        policy.retry_priority = RetryPolicyRetryPriority(
            name="envoy.retry_priorities.previous_priorities",
            typed_config=packed(PreviousPrioritiesConfig(update_frequency=2), priorities),
        )
    return policy


def _retry_policy(retries_503: bool, spread: bool) -> RetryPolicy:
    """istiod's own; `spread`: a retry goes to a host that was not tried before."""
    policy = made(RetryPolicy, retry_on=_RETRY_ON, num_retries=2, host_selection_retry_max_attempts=5)
    if retries_503:
        policy.retriable_status_codes = [503]
    if spread:
        policy.retry_host_predicate = _spread()
    return policy


def _spread() -> list[RetryPolicyRetryHostPredicate]:
    predicate = packed(PreviousHostsPredicate(), "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")
    return [
        made(RetryPolicyRetryHostPredicate, name="envoy.retry_host_predicates.previous_hosts", typed_config=predicate)
    ]


@cache
def _sealed_retry_policy(retries_503: bool, spread: bool) -> RetryPolicy:
    """The same for the many routes that leave it as it is."""
    return sealed(_retry_policy(retries_503, spread))
