"""Which share of what istiod sends crosses a zone: what clouds charge for."""

from __future__ import annotations

from collections import Counter

from pushsim.mesh import Mesh, Ref

_ZONE = "topology.kubernetes.io/zone"
#: Hours of a month, as cloud price lists count them.
HOURS_PER_MONTH = 730


def cross_zone_share(mesh: Mesh) -> float | None:
    """The share of proxies whose istiod is in another zone, if each connects to any istiod alike; None if no zones are.

    istiod's pods are those with the label `app: istiod`; where the mesh has none, they are taken to be spread evenly.
    """
    zones = {node.ref.name: node.labels.get(_ZONE, "") for node in mesh.of_kind("Node")}
    if not any(zones.values()):
        return None
    proxies: Counter[str] = Counter()
    for proxy in mesh.proxies:
        pod = mesh.objects.get(Ref("Pod", proxy.namespace, proxy.name))
        if pod is not None and (zone := zones.get(str(pod.spec.get("nodeName")), "")):
            proxies[zone] += 1
    istiods = Counter(
        zone
        for pod in mesh.of_kind("Pod")
        if pod.labels.get("app") == "istiod" and (zone := zones.get(str(pod.spec.get("nodeName")), ""))
    ) or Counter(set(filter(None, zones.values())))
    together = sum(count * istiods[zone] for zone, count in proxies.items())
    pairs = proxies.total() * istiods.total()
    return 1 - together / pairs if pairs else None


def per_month(bytes_per_s: float, share: float, price_per_gb: float) -> float:
    """What such traffic costs a month; a GB is 10⁹ bytes."""
    return bytes_per_s * share * 3600 * HOURS_PER_MONTH / 1e9 * price_per_gb
