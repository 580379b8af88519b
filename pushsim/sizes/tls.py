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
from pushsim.sizes.settings import Settings, dig
from pushsim.sizes.switches import Sizing
from pushsim.sizes.wire import length, made, packed

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


def _combined(
    checks: CertificateValidationContext, root: SdsSecretConfig
) -> CommonTlsContextCombinedCertificateValidationContext:
    return made(
        CommonTlsContextCombinedCertificateValidationContext,
        default_validation_context=checks,
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
        combined_validation_context=_combined(_sans(sans), sds("ROOTCA")),
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


def originated(
    tls: Mapping[str, Json], sans: Sequence[str], sizing: Sizing, settings: Settings, *, http2: bool
) -> UpstreamTlsContext:
    """TLS to a server outside the mesh, as a DestinationRule asks (constructUpstreamTLS)."""
    mutual = tls.get("mode") == "MUTUAL"
    common = made(CommonTlsContext, tls_params=_parameters(), alpn_protocols=["h2"] if http2 else [])
    _default(common, sizing, settings, lowest=False)
    credential, authority = str(tls.get("credentialName") or ""), str(tls.get("caCertificates") or "")
    trusting = bool(tls.get("insecureSkipVerify")) and sizing.skips_verification
    if credential:
        # ApplyCustomSDSToClientCommonTLSContext: certificates come from the gateway's own SDS server
        if mutual:
            common.tls_certificate_sds_secret_configs = [_of_credential(credential)]
        if not trusting:
            common.combined_validation_context = _combined(_sans(sans), _of_credential(f"{credential}{AUTHORITY}"))
    else:
        if mutual:
            common.tls_certificate_sds_secret_configs = [
                sds(_files(tls.get("clientCertificate"), tls.get("privateKey")))
            ]
        if authority and not trusting:
            checks = _sans(sans)
            _revoke(checks, tls, sizing)
            common.combined_validation_context = _combined(checks, sds(f"file-root:{authority}"))
        else:
            common.validation_context = made(CertificateValidationContext)
    return made(UpstreamTlsContext, sni=str(tls.get("sni") or ""), common_tls_context=common)


def _files(certificate: Json, key: Json) -> str:
    return f"file-cert:{certificate}~{key}" if certificate and key else "default"


def _revoke(checks: CertificateValidationContext, tls: Mapping[str, Json], sizing: Sizing) -> None:
    """A list of revoked certificates, in a file."""
    if tls.get("caCrl") and sizing.revocation_files:
        checks.crl = DataSource(filename=str(tls["caCrl"]))


def _default(common: CommonTlsContext, sizing: Sizing, settings: Settings, *, lowest: bool) -> None:
    """What the mesh config says of all TLS to and from outside; `lowest`: of versions, too (applyTLSDefaults)."""
    defaults = settings.mesh.get("tlsDefaults") or {}
    if not sizing.tls_defaults or not defaults:
        return
    parameters = common.tls_params or TlsParameters()
    parameters.ecdh_curves = [str(curve) for curve in defaults.get("ecdhCurves") or ()]
    parameters.cipher_suites = [str(suite) for suite in defaults.get("cipherSuites") or ()]
    version = str(defaults.get("minProtocolVersion") or "TLS_AUTO")
    if lowest and version != "TLS_AUTO":
        least = TlsParametersTlsProtocol.TLSv1_3 if version == "TLSV1_3" else TlsParametersTlsProtocol.TLSv1_2
        parameters.tls_minimum_protocol_version = least
    if length(parameters):
        common.tls_params = parameters


_CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-GCM-SHA256",
)  # fmt: skip


def mesh_server(
    trust_domains: Sequence[str], sizing: Sizing, settings: Settings, *, http: bool
) -> DownstreamTlsContext:
    """A sidecar's own mTLS: clients must have a certificate of one of the trust domains (BuildInboundTLS)."""
    parameters = _parameters()
    chosen = dig(settings.mesh, "meshMTLS", "cipherSuites") if sizing.mesh_ciphers else None
    parameters.cipher_suites = [str(suite) for suite in chosen or _CIPHERS]
    domains = made(
        CertificateValidationContext,
        match_subject_alt_names=[made(StringMatcher, prefix=f"spiffe://{domain}/") for domain in trust_domains],
    )
    common = made(
        CommonTlsContext,
        tls_params=parameters,
        tls_certificate_sds_secret_configs=[sds("default")],
        combined_validation_context=_combined(domains, sds("ROOTCA")),
        alpn_protocols=[*(["istio-peer-exchange"] if sizing.exchange_alpn and not http else []), "h2", "http/1.1"],
    )
    return made(DownstreamTlsContext, common_tls_context=common, require_client_certificate=True)


def gateway_server(spec: Mapping[str, Json], sizing: Sizing, settings: Settings, *, http: bool) -> DownstreamTlsContext:
    """TLS that a Gateway's server ends, of HTTP or of anything else (BuildListenerTLSContext)."""
    mode = str(spec.get("mode") or "SIMPLE")
    own = mode == "ISTIO_MUTUAL"
    exchanging = own and not http and sizing.gateway_exchange_alpn
    common = made(CommonTlsContext, alpn_protocols=[*(["istio-peer-exchange"] if exchanging else []), "h2", "http/1.1"])
    named = [str(name) for name in spec.get("credentialNames") or ()] if sizing.several_certificates else []
    if spec.get("credentialName"):
        named = named or [str(spec["credentialName"])]
    checks = _sans([str(name) for name in spec.get("subjectAltNames") or ()])
    if named and not own:
        _credentials(common, named, checks, spec, sizing)
    else:
        written = (spec.get("tlsCertificates") if sizing.several_certificates else None) or [spec]
        files = ["default"] if own else [_files(of.get("serverCertificate"), of.get("privateKey")) for of in written]
        common.tls_certificate_sds_secret_configs = [sds(name) for name in files]
        if mode in _CHECKING:
            _revoke(checks, spec, sizing)
            authority = f"file-root:{spec['caCertificates']}" if spec.get("caCertificates") and not own else "ROOTCA"
            common.combined_validation_context = _combined(checks, sds(authority))
    if not own:
        _default(common, sizing, settings, lowest=True)
    if not own or not sizing.tls_defaults:
        _choose(common, spec)
    return made(
        DownstreamTlsContext, common_tls_context=common, require_client_certificate=mode in ("MUTUAL", "ISTIO_MUTUAL")
    )


#: Modes in which clients show certificates.
_CHECKING = ("MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL")


def _credentials(
    common: CommonTlsContext,
    names: Sequence[str],
    checks: CertificateValidationContext,
    spec: Mapping[str, Json],
    sizing: Sizing,
) -> None:
    """Certificates that are Secrets (ApplyCredentialSDSToServerCommonTLSContext)."""
    common.tls_certificate_sds_secret_configs = [_of_credential(name) for name in names]
    if spec.get("mode") in _CHECKING:
        checks.verify_certificate_spki = [str(value) for value in spec.get("verifyCertificateSpki") or ()]
        checks.verify_certificate_hash = [str(value) for value in spec.get("verifyCertificateHash") or ()]
        authority = str(spec.get("caCertCredentialName") or "") if sizing.authority_credentials else ""
        common.combined_validation_context = _combined(checks, _of_credential(authority or names[0] + AUTHORITY))
    elif checks.match_subject_alt_names:
        common.validation_context = checks


def _of_credential(name: str) -> SdsSecretConfig:
    """A Secret that is named; the built-in one is the workload's own (ConstructSdsSecretConfigForCredential)."""
    if name in ("builtin://", f"builtin://{AUTHORITY}"):
        return sds("ROOTCA" if name.endswith(AUTHORITY) else "default")
    return sds_ads(_credential(name))


_KNOWN_CIPHERS = frozenset((
    *_CIPHERS, "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "AES128-SHA", "AES256-SHA",
    "DES-CBC3-SHA", "", "ALL",
))  # fmt: skip


def _choose(common: CommonTlsContext, spec: Mapping[str, Json]) -> None:
    """Versions and ciphers a server asks for, over those that are there: of ciphers, those that Envoy knows."""
    suites = dict.fromkeys(map(str, spec.get("cipherSuites") or ()))
    known = [suite for suite in suites if suite in _KNOWN_CIPHERS or not suite[0].isalnum()]
    versions = {"TLSV1_0": 1, "TLSV1_1": 2, "TLSV1_2": 3, "TLSV1_3": 4}
    lowest = versions.get(str(spec.get("minProtocolVersion") or ""), 0)
    highest = versions.get(str(spec.get("maxProtocolVersion") or ""), 0)
    if not (known or lowest or highest):
        return
    parameters = common.tls_params = common.tls_params or TlsParameters()
    parameters.cipher_suites = known or parameters.cipher_suites
    if lowest:
        parameters.tls_minimum_protocol_version = TlsParametersTlsProtocol(lowest)
    if highest:
        parameters.tls_maximum_protocol_version = TlsParametersTlsProtocol(highest)


def sds_ads(name: str) -> SdsSecretConfig:
    """A secret that istiod itself sends (credentialName of a Gateway)."""
    config = made(ConfigSource, ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)
    return made(SdsSecretConfig, name=name, sds_config=config)
