"""Which kinds are read, in which API groups and versions, and under which names kubectl knows them."""

from __future__ import annotations

from dataclasses import dataclass

from pushsim.errors import InputError, Problem, meant
from pushsim.mesh import CLUSTER_SCOPED, Mesh, Ref


@dataclass(frozen=True, slots=True)
class Kind:
    """A modelled kind: its API group ("" is core), the versions ever served, kubectl's other names for it."""

    name: str
    group: str
    versions: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    watched: bool = True  # istiod watches it, so it is part of a Mesh; workloads only expand to what it watches


_NETWORKING = ("v1alpha3", "v1beta1", "v1")
_SECURITY = ("v1beta1", "v1")
KINDS = {
    kind.name: kind
    for kind in (
        Kind("Namespace", "", ("v1",), ("ns",)),
        Kind("Node", "", ("v1",), ("no",)),
        Kind("Pod", "", ("v1",), ("po",)),
        Kind("Service", "", ("v1",), ("svc",)),
        Kind("Endpoints", "", ("v1",), ("ep",), watched=False),
        Kind("Secret", "", ("v1",)),
        Kind("EndpointSlice", "discovery.k8s.io", ("v1alpha1", "v1beta1", "v1")),
        Kind("Deployment", "apps", ("v1beta1", "v1beta2", "v1"), ("deploy",), watched=False),
        Kind("StatefulSet", "apps", ("v1beta1", "v1beta2", "v1"), ("sts",), watched=False),
        Kind("DaemonSet", "apps", ("v1beta2", "v1"), ("ds",), watched=False),
        Kind("ReplicaSet", "apps", ("v1beta2", "v1"), ("rs",), watched=False),
        Kind("Job", "batch", ("v1",), (), watched=False),
        Kind("CronJob", "batch", ("v1beta1", "v2alpha1", "v1"), ("cj",), watched=False),
        Kind("HorizontalPodAutoscaler", "autoscaling", ("v1", "v2beta1", "v2beta2", "v2"), ("hpa",), watched=False),
        Kind("Sidecar", "networking.istio.io", _NETWORKING),
        Kind("VirtualService", "networking.istio.io", _NETWORKING, ("vs",)),
        Kind("DestinationRule", "networking.istio.io", _NETWORKING, ("dr",)),
        Kind("ServiceEntry", "networking.istio.io", _NETWORKING, ("se",)),
        Kind("WorkloadEntry", "networking.istio.io", _NETWORKING, ("we",)),
        Kind("WorkloadGroup", "networking.istio.io", _NETWORKING, ("wg",)),
        Kind("Gateway", "networking.istio.io", _NETWORKING, ("gw",)),
        Kind("EnvoyFilter", "networking.istio.io", ("v1alpha3",)),
        Kind("ProxyConfig", "networking.istio.io", ("v1beta1",)),
        Kind("AuthorizationPolicy", "security.istio.io", _SECURITY, ("ap",)),
        Kind("PeerAuthentication", "security.istio.io", _SECURITY, ("pa",)),
        Kind("RequestAuthentication", "security.istio.io", _SECURITY, ("ra",)),
        Kind("Telemetry", "telemetry.istio.io", ("v1alpha1", "v1")),
        Kind("WasmPlugin", "extensions.istio.io", ("v1alpha1",)),
    )
}
#: Workloads were also served by extensions/v1beta1 until Kubernetes 1.16.
_EXTENSIONS = ("Deployment", "DaemonSet", "ReplicaSet")
#: Kinds whose objects become pods.
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob")
#: In an istio.io group, but the installer's business and not istiod's.
_INSTALLER_GROUPS = ("install.istio.io", "operator.istio.io")

_NAMES = {
    spelling: kind.name
    for kind in KINDS.values()
    for spelling in (
        kind.name.lower(),
        kind.name.lower() + "s",
        kind.name.lower() + "es",
        kind.name.lower().removesuffix("y") + "ies",
        *kind.aliases,
    )
}


def modelled(api_version: str, kind: str, where: str = "") -> bool:
    """Is this kind of object read (else only counted)?

    Raises InputError for an unknown kind of an istio.io group (nearest known name as remedy) and for an apiVersion
    of a modelled kind that no Kubernetes or Istio release served.
    """
    group, _, version = api_version.rpartition("/")
    known = KINDS.get(kind)
    if known and (group == known.group or (group == "extensions" and kind in _EXTENSIONS)):
        if version in known.versions or group == "extensions":
            return True
        served = ", ".join(f"{group}/{v}".lstrip("/") for v in known.versions)
        raise InputError(
            Problem(f"no release serves {kind} as '{api_version}'", where, "apiVersion", f"use one of {served}")
        )
    if not (group == "istio.io" or group.endswith(".istio.io")) or group in _INSTALLER_GROUPS:
        return False
    if known:
        raise InputError(
            Problem(
                f"{kind} is not in the group '{group}'",
                where,
                "apiVersion",
                f"use {known.group}/{known.versions[-1]}".replace("use /", "use "),
            )
        )
    here = [k.name for k in KINDS.values() if k.group == group] or [
        k.name for k in KINDS.values() if k.group.endswith("istio.io")
    ]
    remedy = f"{meant(kind, here)} known".lstrip()
    raise InputError(
        Problem(f"unknown Istio kind '{kind}'", where, "kind", f"{remedy} in that group: {', '.join(sorted(here))}")
    )


def owner_of(pod_body: object) -> tuple[str, str]:
    """(kind, name) of the workload a pod belongs to, ("", "") if of none.

    A ReplicaSet called `<deployment>-<pod-template-hash>` stands for its Deployment, as in Istio's own
    workload-name rule (pkg/kube/labels, GetDeployMetaFromPod).
    """
    metadata = pod_body.get("metadata") or {} if isinstance(pod_body, dict) else {}
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller", True):
            kind, name = owner.get("kind", ""), owner.get("name", "")
            template_hash = (metadata.get("labels") or {}).get("pod-template-hash", "")
            if kind == "ReplicaSet" and template_hash and name.endswith("-" + template_hash):
                return "Deployment", name[: -len(template_hash) - 1]
            return kind, name
    return "", ""


def parse_delete(text: str, mesh: Mesh, *, namespace: str = "default") -> Ref:
    """The object that `[group/]Kind/[namespace/]name` names: kind in any case, plural or kubectl's short name.

    Workloads that were expanded (`Deployment/ns/name`) are found by their pods. Without a namespace, `namespace` is
    tried first, then any other in which exactly one such object exists. Raises InputError with near misses.
    """
    parts = text.strip().split("/")
    if len(parts) > 2 and "." in parts[0] and parts[1].lower() in _NAMES and parts[0].lower() not in _NAMES:
        group, parts = parts[0], parts[1:]
    else:
        group = ""
    if len(parts) > 2 and parts[0].lower() not in _NAMES and parts[1].lower() in _NAMES:
        group, parts = parts[0], parts[1:]  # apps/Deployment/ns/name
    spelled, _, suffix = parts[0].partition(".")  # kubectl's virtualservices.networking.istio.io
    kind = _NAMES.get(spelled.lower(), "")
    if len(parts) not in (2, 3) or not all(parts):
        raise InputError(
            Problem(
                f"'{text}' is not [group/]Kind/[namespace/]name",
                field="--delete",
                remedy="e.g. Service/default/reviews",
            )
        )
    if not kind or (group or suffix) not in ("", KINDS[kind].group):
        near = "" if kind else meant(spelled, KINDS)
        raise InputError(
            Problem(
                f"unknown kind '{'/'.join(filter(None, (group, parts[0])))}'",
                field="--delete",
                remedy=f"{near} known: {', '.join(KINDS)}".lstrip(),
            )
        )
    refs = {ref for ref in mesh.objects if ref.kind == kind}
    if kind in WORKLOADS:
        refs = {
            Ref(kind, pod.ref.namespace, owner_of(pod.body)[1])
            for pod in mesh.of_kind("Pod")
            if owner_of(pod.body)[0] == kind
        }
    name = parts[-1]
    if kind in CLUSTER_SCOPED:
        wanted = [Ref(kind, "", name)]
    elif len(parts) == 3:
        wanted = [Ref(kind, parts[1], name)]
    else:
        wanted = [Ref(kind, namespace, name), *([r for r in sorted(refs) if r.name == name])]
        if wanted[0] not in refs and len(wanted) > 2:
            raise InputError(
                Problem(
                    f"'{text}' is in several namespaces",
                    field="--delete",
                    remedy="name one: " + ", ".join(map(str, wanted[1:])),
                )
            )
    if found := next((ref for ref in wanted if ref in refs), None):
        return found
    same_name = [str(r) for r in sorted(refs) if r.name == name]
    remedy = (
        f"did you mean {' or '.join(same_name[:3])}?" if same_name else meant(str(wanted[0]), map(str, sorted(refs)))
    )
    remedy = remedy or (f"the mesh has no {kind}" if not refs else "see the manifests for what there is")
    raise InputError(Problem(f"no {wanted[0]} in the mesh", field="--delete", remedy=remedy))
