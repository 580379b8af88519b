"""istiod's registries and config store: Kubernetes and Istio events in, PushRequests out, and the state they leave.

This is what istiod's informer handlers do before the debounce: whether an event pushes at all, with which keys, and
whether for endpoints only. Source: reference `push-semantics` §1, confirmed by recordings.

aggregate   `Registry`: hands each event to the handlers it concerns; which services a proxy belongs to
store       the objects, by name and by kind and namespace
endpoints   `EndpointIndex`: endpoints by service and shard, and what a changed list asks for
kubernetes  Services, EndpointSlices and Pods
entries     ServiceEntries, and the Pods and WorkloadEntries they select
workloads   WorkloadEntries and Pods as the workloads of a service
configs     all other Istio configuration
delegates   VirtualServices with their delegates merged in
"""

from pushsim.registry.aggregate import Registry, Target
from pushsim.registry.delegates import delegates, merged

__all__ = ["Registry", "Target", "delegates", "merged"]
