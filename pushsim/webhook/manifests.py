"""What installs the webhook: Namespace to MutatingWebhookConfiguration, as plain manifests."""

from __future__ import annotations

import base64
from typing import Any

NAME = "pushsim-webhook"
#: Longer than the slowest review by far, and short enough that a lost webhook does not hold up deployments.
TIMEOUT_S = 2
_PORT = 8443


def manifests(policy: str, *, namespace: str, image: str, ca_bundle: bytes | None = None) -> list[dict[str, Any]]:
    """The objects, in the order in which to apply them.

    policy:    the policy file's text.
    ca_bundle: PEM of the CA that signed the certificate in the Secret `pushsim-webhook-tls`; None lets cert-manager
               make both.
    """
    labels = {"app": NAME}

    def named(kind: str, api: str, name: str = NAME, **rest: Any) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "labels": labels}
        if kind not in ("Namespace", "MutatingWebhookConfiguration"):
            metadata["namespace"] = namespace
        return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}

    secret = f"{NAME}-tls"
    space = named("Namespace", "v1", namespace)
    space["metadata"]["labels"] = {**labels, "istio-injection": "disabled"}
    found = [
        space,
        # it asks the API server for nothing: an account without a token, and no Role at all
        named("ServiceAccount", "v1", automountServiceAccountToken=False),
        named("ConfigMap", "v1", data={"policy.yaml": policy}),
        named("Deployment", "apps/v1", spec=_deployment(labels, image, secret)),
        named("PodDisruptionBudget", "policy/v1", spec={"minAvailable": 1, "selector": {"matchLabels": labels}}),
        named(
            "Service", "v1", spec={"selector": labels, "ports": [{"name": "https", "port": 443, "targetPort": _PORT}]}
        ),
    ]
    configuration = named("MutatingWebhookConfiguration", "admissionregistration.k8s.io/v1")
    client: dict[str, Any] = {"service": {"name": NAME, "namespace": namespace, "path": "/mutate", "port": 443}}
    if ca_bundle is not None:
        client["caBundle"] = base64.b64encode(ca_bundle).decode()
    else:
        names = [f"{NAME}.{namespace}.svc", f"{NAME}.{namespace}.svc.cluster.local"]
        issuer = {"name": NAME, "kind": "Issuer"}
        found += [
            named("Issuer", "cert-manager.io/v1", spec={"selfSigned": {}}),
            named(
                "Certificate", "cert-manager.io/v1", spec={"secretName": secret, "dnsNames": names, "issuerRef": issuer}
            ),
        ]
        configuration["metadata"]["annotations"] = {"cert-manager.io/inject-ca-from": f"{namespace}/{NAME}"}
    configuration["webhooks"] = [_webhook(client, namespace)]
    return [*found, configuration]


def _webhook(client: dict[str, Any], namespace: str) -> dict[str, Any]:
    untouched = ["kube-system", "kube-public", "kube-node-lease", "istio-system", namespace]
    selector = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": list(dict.fromkeys(untouched))}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"], "scope": "Namespaced"}
    return {
        "name": "visibility.pushsim.io",
        "admissionReviewVersions": ["v1"],
        "clientConfig": client,
        "rules": [{**rule, "operations": ["CREATE", "UPDATE"]}],
        "namespaceSelector": {"matchExpressions": [selector]},
        "failurePolicy": "Ignore",  # a Service that is seen by too many is better than one that is not there
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_S,
    }


def _deployment(labels: dict[str, str], image: str, secret: str) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/healthz", "port": _PORT, "scheme": "HTTPS"}}
    arguments = ["webhook", "--policy", "/policy/policy.yaml", "--cert", "/tls/tls.crt", "--key", "/tls/tls.key"]
    container = {
        "name": "webhook",
        "image": image,
        "command": ["pushsim"],
        "args": [*arguments, "--host", "0.0.0.0", "--port", str(_PORT)],
        "ports": [{"name": "https", "containerPort": _PORT}],
        "readinessProbe": probe,
        "livenessProbe": probe,
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": "policy", "mountPath": "/policy", "readOnly": True},
            {"name": "tls", "mountPath": "/tls", "readOnly": True},
        ],
    }
    volumes = [
        {"name": "policy", "configMap": {"name": NAME}},
        {"name": "tls", "secret": {"secretName": secret}},
    ]
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": str(_PORT), "prometheus.io/scheme": "https"}
    pod = {
        "serviceAccountName": NAME,
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": volumes,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }
        ],
    }
    template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod}
    return {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
