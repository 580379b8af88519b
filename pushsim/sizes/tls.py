"""TLS contexts and transport sockets, as istiod writes them for clusters and listeners.

Sources: pilot/pkg/networking/core/cluster_tls.go, pilot/pkg/security/model/authentication.go,
pkg/model/authentication.go, pilot/pkg/security/authn/utils/utils.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any as Json

from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiConfigSource,
    ApiConfigSourceApiType,
    ApiVersion,
    ConfigSource,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    TransportSocket,
)
from envoy_data_plane.envoy.extensions.transport_sockets.raw_buffer.v3 import RawBuffer
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    CommonTlsContextCombinedCertificateValidationContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from pushsim.mesh import Object
from pushsim.resources import Credential
from pushsim.secrets import AUTHORITY, pair, trusted
from pushsim.sizes.wire import made, packed

MTLS_HTTP_ALPN = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
_TLS = "envoy.extensions.transport_sockets.tls.v3."


def raw_buffer() -> TransportSocket:
    """The plaintext transport socket."""
    body = packed(RawBuffer(), "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")
    return made(TransportSocket, name="envoy.transport_sockets.raw_buffer", typed_config=body)


@lru_cache
def sds(name: str, cluster: str = "sds-grpc") -> SdsSecretConfig:
    """A secret fetched from the agent."""
    source = made(
        ApiConfigSource,
        api_type=ApiConfigSourceApiType.GRPC,
        set_node_on_first_message_only=True,
        transport_api_version=ApiVersion.V3,
        grpc_services=[made(GrpcService, envoy_grpc=made(GrpcServiceEnvoyGrpc, cluster_name=cluster))],
    )
    config = made(ConfigSource, api_config_source=source, resource_api_version=ApiVersion.V3)
    if name in ("default", "ROOTCA"):  # the workload's own wait for the agent; certificates in files do not
        config.initial_fetch_timeout = timedelta(0)
    return made(SdsSecretConfig, name=name, sds_config=config)


def _sans(names: Sequence[str]) -> CertificateValidationContext:
    return made(
        CertificateValidationContext, match_subject_alt_names=[made(StringMatcher, exact=name) for name in names]
    )


def _combined(sans: Sequence[str], root: SdsSecretConfig) -> CommonTlsContextCombinedCertificateValidationContext:
    return made(
        CommonTlsContextCombinedCertificateValidationContext,
        default_validation_context=_sans(sans),
        validation_context_sds_secret_config=root,
    )


def _parameters() -> TlsParameters:
    return TlsParameters(
        tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2,
        tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
    )


def upstream_socket(context: UpstreamTlsContext) -> TransportSocket:
    """A client's TLS transport socket."""
    body = packed(context, _TLS + "UpstreamTlsContext")
    return made(TransportSocket, name="envoy.transport_sockets.tls", typed_config=body)


def downstream_socket(context: DownstreamTlsContext) -> TransportSocket:
    """A server's TLS transport socket."""
    body = packed(context, _TLS + "DownstreamTlsContext")
    return made(TransportSocket, name="envoy.transport_sockets.tls", typed_config=body)


def istio_mutual(sni: str, sans: Sequence[str], *, http2: bool, exchange: bool) -> UpstreamTlsContext:
    """A client's mTLS within the mesh; `exchange` adds the ALPN of TCP metadata exchange."""
    alpn = (["istio-peer-exchange"] if exchange else []) + ["istio"] + (["h2"] if http2 else [])
    common = made(
        CommonTlsContext,
        tls_params=_parameters(),
        tls_certificate_sds_secret_configs=[sds("default")],
        combined_validation_context=_combined(sans, sds("ROOTCA")),
        alpn_protocols=alpn,
    )
    return made(UpstreamTlsContext, sni=sni, common_tls_context=common)


def credential_names(security: Mapping[str, Json], *, client: bool) -> tuple[str, ...]:
    """Names of the secrets that istiod is asked for by the TLS settings of a DestinationRule (`client`) or a Gateway.

    Source: pilot/pkg/security/model/authentication.go (ApplyCustomSDSToClientCommonTLSContext,
    ApplyCredentialSDSToServerCommonTLSContext).
    """
    mode, credential = str(security.get("mode") or ""), str(security.get("credentialName") or "")
    if not credential or mode == "ISTIO_MUTUAL" or (client and mode not in ("SIMPLE", "MUTUAL")):
        return ()
    mutual = mode in ("MUTUAL", "OPTIONAL_MUTUAL")
    own = (_credential(credential),) if mutual or not client else ()
    authority = not security.get("insecureSkipVerify") if client else mutual
    return (*own, f"{_credential(credential)}{AUTHORITY}") if authority else own


def withheld(rules: Sequence[Object], security: Mapping[str, Json] | None) -> bool:
    """Whether a sidecar is not told of TLS settings: their credential would be every sidecar's, who may not read it.

    Source: pilot/pkg/networking/core/cluster_tls.go (buildUpstreamClusterTLSContext).
    """
    if not security or not security.get("credentialName") or security.get("mode") not in ("SIMPLE", "MUTUAL"):
        return False
    return not any(rule.spec.get("workloadSelector") for rule in rules)


def _credential(name: str) -> str:
    return name if "://" in name else f"kubernetes://{name}"


def secret(resource: Credential, *, revocation: bool) -> Secret:
    """A secret of istiod's own (toEnvoyTLSSecret, toEnvoyCaSecret); `revocation`: with staples and lists."""
    data = resource.written.body.get("data") or {}
    if resource.authority:
        root = trusted(data)
        assert root is not None, "one without is not sent"
        context = made(CertificateValidationContext, trusted_ca=DataSource(inline_bytes=root.certificate))
        if root.revoked and revocation:
            context.crl = DataSource(inline_bytes=root.revoked)
        return made(Secret, name=resource.name, validation_context=context)
    found = pair(data)
    assert found is not None, "one without is not sent"
    certificate = made(
        TlsCertificate,
        certificate_chain=DataSource(inline_bytes=found.chain),
        private_key=DataSource(inline_bytes=found.key),
    )
    if found.staple and revocation:
        certificate.ocsp_staple = DataSource(inline_bytes=found.staple)
    return made(Secret, name=resource.name, tls_certificate=certificate)


def originated(tls: Mapping[str, Json], sans: Sequence[str], *, http2: bool) -> UpstreamTlsContext:
    """TLS to a server outside the mesh, as a DestinationRule asks (constructUpstreamTLS)."""
    mutual = tls.get("mode") == "MUTUAL"
    common = made(CommonTlsContext, tls_params=_parameters(), alpn_protocols=["h2"] if http2 else [])
    credential, authority = tls.get("credentialName"), tls.get("caCertificates") or ""
    if credential:
        # ApplyCustomSDSToClientCommonTLSContext: certificates come from the gateway's own SDS server
        if mutual:
            common.tls_certificate_sds_secret_configs = [sds_ads(f"kubernetes://{credential}")]
        common.combined_validation_context = _combined(sans, sds_ads(f"kubernetes://{credential}-cacert"))
    else:
        if mutual:
            files = f"file-cert:{tls.get('clientCertificate', '')}~{tls.get('privateKey', '')}"
            common.tls_certificate_sds_secret_configs = [sds(files)]
        if authority and not tls.get("insecureSkipVerify"):
            common.combined_validation_context = _combined(sans, sds(f"file-root:{authority}"))
        else:
            common.validation_context = made(CertificateValidationContext)
    return made(UpstreamTlsContext, sni=str(tls.get("sni") or ""), common_tls_context=common)


_CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-GCM-SHA256",
)  # fmt: skip


def mesh_server(trust_domains: Sequence[str], *, http: bool, exchange: bool) -> DownstreamTlsContext:
    """A sidecar's own mTLS: clients must have a certificate of one of the trust domains."""
    parameters = _parameters()
    parameters.cipher_suites = list(_CIPHERS)
    domains = made(
        CertificateValidationContext,
        match_subject_alt_names=[made(StringMatcher, prefix=f"spiffe://{domain}/") for domain in trust_domains],
    )
    common = made(
        CommonTlsContext,
        tls_params=parameters,
        tls_certificate_sds_secret_configs=[sds("default")],
        combined_validation_context=made(
            CommonTlsContextCombinedCertificateValidationContext,
            default_validation_context=domains,
            validation_context_sds_secret_config=sds("ROOTCA"),
        ),
        alpn_protocols=[*(["istio-peer-exchange"] if exchange and not http else []), "h2", "http/1.1"],
    )
    return made(DownstreamTlsContext, common_tls_context=common, require_client_certificate=True)


def gateway_server(spec: Mapping[str, Json]) -> DownstreamTlsContext:
    """TLS of a Gateway's server (BuildListenerTLSContext)."""
    mode = str(spec.get("mode") or "SIMPLE")
    common = made(CommonTlsContext, alpn_protocols=["h2", "http/1.1"])
    sans = [str(name) for name in spec.get("subjectAltNames") or ()]
    credential = str(spec.get("credentialName") or "")
    mutual = mode in ("MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")
    if credential:
        common.tls_certificate_sds_secret_configs = [sds_ads(f"kubernetes://{credential}")]
        if mutual:
            common.combined_validation_context = _combined(sans, sds_ads(f"kubernetes://{credential}-cacert"))
    elif mode == "ISTIO_MUTUAL":
        common.tls_certificate_sds_secret_configs = [sds("default")]
        common.combined_validation_context = _combined(sans, sds("ROOTCA"))
    else:
        files = f"file-cert:{spec.get('serverCertificate', '')}~{spec.get('privateKey', '')}"
        common.tls_certificate_sds_secret_configs = [sds(files)]
        if mutual:
            common.combined_validation_context = _combined(sans, sds(f"file-root:{spec.get('caCertificates', '')}"))
    if mode != "ISTIO_MUTUAL":
        common.tls_params = _written_parameters(spec)
    return made(
        DownstreamTlsContext, common_tls_context=common, require_client_certificate=mode in ("MUTUAL", "ISTIO_MUTUAL")
    )


def _written_parameters(spec: Mapping[str, Json]) -> TlsParameters | None:
    """Versions and ciphers a server asks for; none if it does not."""
    if not any(spec.get(key) for key in ("minProtocolVersion", "maxProtocolVersion", "cipherSuites")):
        return None
    parameters = TlsParameters()
    parameters.cipher_suites = [str(suite) for suite in spec.get("cipherSuites") or ()]
    versions = {"TLSV1_0": 1, "TLSV1_1": 2, "TLSV1_2": 3, "TLSV1_3": 4}
    lowest = versions.get(str(spec.get("minProtocolVersion") or ""), 0)
    parameters.tls_minimum_protocol_version = TlsParametersTlsProtocol(lowest)
    highest = versions.get(str(spec.get("maxProtocolVersion") or ""), 0)
    parameters.tls_maximum_protocol_version = TlsParametersTlsProtocol(highest)
    return parameters


def sds_ads(name: str) -> SdsSecretConfig:
    """A secret that istiod itself sends (credentialName of a Gateway)."""
    config = made(ConfigSource, ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)
    return made(SdsSecretConfig, name=name, sds_config=config)
