"""Slips of the pen in what Kubernetes defines: its own kinds, and the metadata of all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pushsim.errors import Problem, meant

#: What may stand in the objects that are read, and what their fields hold, where it is looked at (Kubernetes 1.37, and
#: what it had before; tests hold it against lightkube-models). Others are let pass: a cluster may be newer.
_TABLE = """
    Object: apiVersion kind metadata=ObjectMeta spec status
    Namespace: apiVersion kind metadata=ObjectMeta spec status
    Node: apiVersion kind metadata=ObjectMeta spec status
    Pod: apiVersion kind metadata=ObjectMeta spec=PodSpec status
    Service: apiVersion kind metadata=ObjectMeta spec=ServiceSpec status
    Endpoints: apiVersion kind metadata=ObjectMeta subsets=EndpointSubset
    Secret: apiVersion data immutable kind metadata=ObjectMeta stringData type
    EndpointSlice: addressType apiVersion endpoints=Endpoint kind metadata=ObjectMeta ports=EndpointPort
    Deployment: apiVersion kind metadata=ObjectMeta spec=DeploymentSpec status
    StatefulSet: apiVersion kind metadata=ObjectMeta spec=StatefulSetSpec status
    DaemonSet: apiVersion kind metadata=ObjectMeta spec=DaemonSetSpec status
    ReplicaSet: apiVersion kind metadata=ObjectMeta spec=ReplicaSetSpec status
    Job: apiVersion kind metadata=ObjectMeta spec=JobSpec status
    CronJob: apiVersion kind metadata=ObjectMeta spec=CronJobSpec status
    HorizontalPodAutoscaler: apiVersion kind metadata=ObjectMeta spec=HorizontalPodAutoscalerSpec status
    ObjectMeta: annotations clusterName creationTimestamp deletionGracePeriodSeconds deletionTimestamp
      finalizers generateName generation labels managedFields name namespace ownerReferences resourceVersion
      selfLink uid
    ServiceSpec: allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName
      externalTrafficPolicy healthCheckNodePort internalTrafficPolicy ipFamilies ipFamily ipFamilyPolicy
      loadBalancerClass loadBalancerIP loadBalancerSourceRanges ports=ServicePort publishNotReadyAddresses
      selector sessionAffinity sessionAffinityConfig topologyKeys trafficDistribution type
    ServicePort: appProtocol name nodePort port protocol targetPort
    PodSpec: activeDeadlineSeconds affinity automountServiceAccountToken containers=Container dnsConfig
      dnsPolicy enableServiceLinks ephemeralContainers evictionResponders hostAliases hostIPC hostNetwork
      hostPID hostUsers hostname hostnameOverride imagePullSecrets initContainers=Container nodeName
      nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates resourceClaims
      resources restartPolicy runtimeClassName schedulerName schedulingGates schedulingGroup securityContext
      serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain
      terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes
    Container: args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports=ContainerPort
      readinessProbe resizePolicy resources restartPolicy restartPolicyRules securityContext startupProbe stdin
      stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir
    ContainerPort: containerPort hostIP hostPort name protocol
    DeploymentSpec: minReadySeconds paused progressDeadlineSeconds replicas revisionHistoryLimit
      selector=LabelSelector strategy template=PodTemplateSpec
    StatefulSetSpec: minReadySeconds ordinals persistentVolumeClaimRetentionPolicy podManagementPolicy replicas
      revisionHistoryLimit selector=LabelSelector serviceName template=PodTemplateSpec updateStrategy
      volumeClaimTemplates
    DaemonSetSpec: minReadySeconds revisionHistoryLimit selector=LabelSelector template=PodTemplateSpec
      updateStrategy
    ReplicaSetSpec: minReadySeconds replicas selector=LabelSelector template=PodTemplateSpec
    JobSpec: activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions managedBy
      manualSelector maxFailedIndexes parallelism podFailurePolicy podReplacementPolicy scheduling
      selector=LabelSelector successPolicy suspend template=PodTemplateSpec ttlSecondsAfterFinished
    CronJobSpec: concurrencyPolicy failedJobsHistoryLimit jobTemplate=JobTemplateSpec schedule
      startingDeadlineSeconds successfulJobsHistoryLimit suspend timeZone
    JobTemplateSpec: metadata=ObjectMeta spec=JobSpec
    PodTemplateSpec: metadata=ObjectMeta spec=PodSpec
    LabelSelector: matchExpressions matchLabels
    Endpoint: addresses conditions=EndpointConditions deprecatedTopology hints hostname nodeName targetRef
      topology zone
    EndpointConditions: ready serving terminating
    EndpointPort: appProtocol name port protocol
    EndpointSubset: addresses=EndpointAddress notReadyAddresses=EndpointAddress ports=EndpointPort
    EndpointAddress: hostname ip nodeName targetRef
    HorizontalPodAutoscalerSpec: behavior maxReplicas metrics minReplicas scaleTargetRef
      targetCPUUtilizationPercentage
"""
TYPES: Mapping[str, Mapping[str, str]] = {
    name: {field: of for field, _, of in (part.partition("=") for part in fields.split())}
    for name, fields in re.findall(r"(?m)^    (\w+): (.*(?:\n      .*)*)", _TABLE)
}
_BELOW = {name: {field: of for field, of in fields.items() if of} for name, fields in TYPES.items()}
#: How near a name must be to be taken for another.
_NEAR = 0.75


def near_misses(body: Mapping[str, Any], kind: str, where: str) -> Iterator[Problem]:
    """Fields of an object that are none of Kubernetes', but nearly. `kubectl apply` refuses them."""
    yield from _near(body, kind if kind in TYPES else "Object", where, "", f"a {kind}")


def _near(value: Any, name: str, where: str, prefix: str, of: str) -> Iterator[Problem]:
    """prefix: the place of what stands in value, of which `TYPES` knows the fields by that name."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _near(item, name, where, f"{prefix.removesuffix('.')}[{index}].", of)
    if not isinstance(value, dict):
        return
    for field in value:
        if field not in TYPES[name] and (near := meant(str(field), TYPES[name], _NEAR)):
            yield Problem(f"is no field of {of}", where, f"{prefix}{field}", near)
    for field, below in _BELOW[name].items():
        if field in value:
            yield from _near(value[field], below, where, f"{prefix}{field}.", of)
