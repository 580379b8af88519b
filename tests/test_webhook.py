"""The admission webhook: its answers over TLS to good and bad reviews; it is the policy that is compared."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Any

import jsonpatch
import psutil
import pytest
import trustme
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pushsim.cli import main
from pushsim.manifests import parse_objects
from pushsim.mesh import Mesh, Object, Ref
from pushsim.policies import EXPORT_TO, Policy, parse
from pushsim.scenario import Scenario
from pushsim.topology import Generate, generate
from pushsim.webhook import answer
from pushsim.webhook.manifests import manifests
from pushsim.webhook.server import renew, serve, tls

WRITTEN = [{"export-to": {"value": "~", "services": {"labels": {"kind": "training"}}}}]
POLICY = parse(WRITTEN)
MESH = generate(
    Generate.model_validate(
        {
            "namespaces": 2,
            "apps": [{"name": "web"}, {"name": "train", "labels": {"kind": "training"}, "headless": True}],
            "gateways": {"count": 1},
        }
    ),
    1,
)
SERVICES = [dict(held.body) for held in MESH.of_kind("Service")]


def service(labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "job", "namespace": "ns-000", "labels": labels or {"kind": "training"}}
    if annotations is not None:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": "None"}}


def review(subject: Any, **request: Any) -> bytes:
    kind = {"group": "", "version": "v1", "kind": "Service"}
    asked = {"uid": "u-1", "kind": kind, "operation": "CREATE", "namespace": "ns-000", "object": subject, **request}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked}).encode()


def patched(subject: dict[str, Any], body: bytes) -> dict[str, Any]:
    """The object as the API server would keep it."""
    response = json.loads(body)["response"]
    assert response["allowed"] is True and response["uid"] == "u-1"
    if "patch" not in response:
        return subject
    assert response["patchType"] == "JSONPatch"
    found: dict[str, Any] = jsonpatch.apply_patch(subject, json.loads(base64.b64decode(response["patch"])))
    return found


# ---- what it answers


@given(
    labels=st.dictionaries(st.sampled_from(["kind", "app"]), st.sampled_from(["training", "web"])),
    annotations=st.none() | st.dictionaries(st.sampled_from([EXPORT_TO, "a/b~c"]), st.sampled_from([".", "~", "x"])),
    override=st.booleans(),
)
def test_a_patch_makes_what_the_policy_makes(labels: Any, annotations: Any, override: bool) -> None:
    policy = parse([{"export-to": {"value": "~", "services": {"labels": {"kind": "training"}}, "override": override}}])
    subject = service(labels or {"x": "y"}, annotations)
    after = patched(subject, answer(policy, review(subject)).body)
    held = Object(Ref("Service", "ns-000", "job"), subject)
    assert after == policy.admit(held, MESH).body
    assert patched(after, answer(policy, review(after)).body) == after, "once more changes nothing"
    written = (annotations or {}).get(EXPORT_TO)
    if written is not None and not override:
        assert after["metadata"]["annotations"][EXPORT_TO] == written, "what somebody wrote stays"


def test_compare_and_the_webhook_run_one_policy() -> None:
    text = """
        mesh: {generate: {namespaces: 2, apps: [{name: web}, {name: train, labels: {kind: training}}]}}
        duration: 1s
        variants: {hidden: [{export-to: {value: "~", services: {labels: {kind: training}}}}]}
    """
    scenario = Scenario.loads(text)
    hidden = scenario.variant("hidden").mesh.objects
    for held in scenario.mesh.of_kind("Service"):
        asked = review(dict(held.body), namespace=held.ref.namespace)
        assert patched(dict(held.body), answer(POLICY, asked).body) == hidden[held.ref].body


@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        (review(service()), "patched"),
        (review(service({"a": "b"})), "unchanged"),
        (review(service(), operation="DELETE"), "ignored"),
        (review(service(), subResource="status"), "ignored"),
        (review(None), "ignored"),
        (review(service(), kind={"group": "apps", "version": "v1", "kind": "Deployment"}), "ignored"),
        (review(service(), kind={"group": "serving.knative.dev", "version": "v1", "kind": "Service"}), "ignored"),
        (review(service(), kind="Service"), "ignored"),
        (review({"metadata": {"labels": 3}}), "failed"),
    ],
)
def test_everything_is_let_in(asked: bytes, outcome: str) -> None:
    found = answer(POLICY, asked)
    response = json.loads(found.body)["response"]
    assert (found.status, found.outcome, response["allowed"], response["uid"]) == (200, outcome, True, "u-1")
    assert ("patch" in response) == (outcome == "patched") and ("warnings" in response) == (outcome == "failed")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"request": {}}', b'{"request": {"uid": 3}}',
     b'{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "x"}}'],
)  # fmt: skip
def test_what_is_no_review_is_told_so(body: bytes) -> None:
    found = answer(POLICY, body)
    assert (found.status, found.outcome) == (400, "malformed") and json.loads(found.body)["error"]


@given(st.recursive(st.none() | st.booleans() | st.text() | st.integers(), lambda c: st.lists(c) | st.dictionaries(
    st.sampled_from(["metadata", "labels", "annotations", "name", "namespace", "x"]), c)))  # fmt: skip
def test_no_object_is_too_strange(subject: Any) -> None:
    found = answer(POLICY, review(subject))
    assert found.status == 200 and json.loads(found.body)["response"]["allowed"] is True


def test_a_policy_that_fails_lets_in_with_a_warning() -> None:
    class Wrong(Policy):
        def admit(self, subject: Object, mesh: Mesh) -> Object:
            raise RuntimeError("no")

    class Renames(Policy):
        def admit(self, subject: Object, mesh: Mesh) -> Object:
            return Object(Ref("Service", "other", "job"), subject.body)

    for policy in (Wrong(), Renames()):
        found = answer(policy, review(service()))
        assert found.outcome == "failed" and json.loads(found.body)["response"]["allowed"] is True


# ---- over TLS


def issue(authority: trustme.CA, folder: Path) -> None:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    for part, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(folder / "tls.crt", append=part > 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issue(authority, folder)
    (folder / "policy.yaml").write_text(yaml.safe_dump(WRITTEN))
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return folder, client


@contextmanager
def listening(folder: Path) -> Iterator[int]:
    """The server in a thread of its own, that looks for a renewed certificate all the time."""
    started, loop = Queue[int](), asyncio.new_event_loop()
    pair = (str(folder / "tls.crt"), str(folder / "tls.key"))
    task = loop.create_task(serve(POLICY, *pair, "127.0.0.1", 0, started.put, look_every_s=0.001))
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])))
    thread.start()
    try:
        yield started.get(timeout=30)
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30)
        loop.close()


def post(client: http.client.HTTPSConnection, body: bytes) -> tuple[int, bytes]:
    client.request("POST", "/mutate", body, {"Content-Type": "application/json"})
    response = client.getresponse()
    return response.status, response.read()


def test_reviews_over_tls(certificate: tuple[Path, ssl.SSLContext], capfd: Any) -> None:
    folder, trust = certificate
    with listening(folder) as port:
        client = http.client.HTTPSConnection("localhost", port, context=trust, timeout=30)
        for subject in SERVICES:
            status, body = post(client, review(subject))
            held = Object(Ref("Service", subject["metadata"]["namespace"], subject["metadata"]["name"]), subject)
            assert status == 200 and patched(subject, body) == POLICY.admit(held, MESH).body
        assert post(client, b"{")[0] == 400
        assert post(client, review(service(), kind={"kind": "Pod"}))[0] == 200
        large = service(annotations={"padding": "x" * 2**20})
        status, body = post(client, review(large))
        assert status == 200 and patched(large, body)["metadata"]["annotations"][EXPORT_TO] == "~"
        assert post(client, b"[" + b"0," * 5_000_000 + b"0]")[0] == 413
        with socket.create_connection(("127.0.0.1", port), 30) as plain:  # no TLS: refused, and nobody waits for it
            plain.sendall(b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            silent = socket.create_connection(("127.0.0.1", port), 30)  # says nothing at all
            again = http.client.HTTPSConnection("localhost", port, context=trust, timeout=30)
            assert post(again, review(service()))[0] == 200
            assert not plain.recv(1000).startswith(b"HTTP")
            silent.close()
        again.request("GET", "/healthz")
        assert again.getresponse().read() == b"ok\n"
        again.request("GET", "/metrics")
        told = again.getresponse().read().decode()
        again.close()
        client.close()
    counts = dict(line.rsplit(" ", 1) for line in told.splitlines() if line.startswith("pushsim_webhook_reviews_total"))
    assert counts['pushsim_webhook_reviews_total{outcome="patched"}'] == "4.0"
    assert counts['pushsim_webhook_reviews_total{outcome="malformed"}'] == "1.0"
    assert counts['pushsim_webhook_reviews_total{outcome="ignored"}'] == "1.0"
    assert "Traceback" not in capfd.readouterr().err


def serial(trust: ssl.SSLContext, port: int) -> Any:
    """The serial number of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return (secured.getpeercert() or {})["serialNumber"]


def test_a_renewed_certificate_is_served_to_new_connections(tmp_path: Path) -> None:
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    issue(authority, tmp_path)
    with listening(tmp_path) as port:
        open_before = http.client.HTTPSConnection("localhost", port, context=trust, timeout=30)
        assert post(open_before, review(service()))[0] == 200
        first = serial(trust, port)
        issue(authority, tmp_path)
        deadline = time.monotonic() + 30
        while serial(trust, port) == first:
            assert time.monotonic() < deadline, "the old certificate is still served"
        assert post(open_before, review(service()))[0] == 200, "what is connected stays so"
        open_before.close()
        again = http.client.HTTPSConnection("localhost", port, context=trust, timeout=30)
        assert post(again, review(service()))[0] == 200
        again.close()


def test_half_a_renewal_leaves_the_certificate_as_it_is(tmp_path: Path) -> None:
    authority, trust = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trust)
    issue(authority, tmp_path)
    cert, key = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
    context = tls(cert, key)

    def shaken_hands() -> bool:
        """Whether a client and this context come to terms, in memory."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = context.wrap_bio(to_server, to_client, server_side=True)
        client = trust.wrap_bio(to_client, to_server, server_hostname="localhost")
        for side in (client, server, client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        return client.version() is not None and server.version() is not None

    for name in ("tls.key", "tls.crt"):
        whole = (tmp_path / name).read_bytes()
        (other := tmp_path / f"other {name}").mkdir()
        issue(authority, other)
        for half in ((other / name).read_bytes(), whole[: len(whole) // 2], b""):
            (tmp_path / name).write_bytes(half)
            assert not renew(context, cert, key) and shaken_hands()
        (tmp_path / name).unlink()
        assert not renew(context, cert, key) and shaken_hands()
        (tmp_path / name).write_bytes(whole)
    assert renew(context, cert, key) and shaken_hands()


def test_500_reviews_a_second_on_one_core(certificate: tuple[Path, ssl.SSLContext]) -> None:
    folder, trust = certificate
    command = [sys.executable, "-c", "from pushsim.cli import main; main()", "webhook", "--policy", "policy.yaml",
               "--cert", "tls.crt", "--key", "tls.key", "--port", "0"]  # fmt: skip
    environment = {"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": ""}
    server = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        port = int(server.stderr.readline().rpartition(":")[2].partition("/")[0])
        client = http.client.HTTPSConnection("localhost", port, context=trust, timeout=30)
        bodies = [review(subject) for subject in SERVICES]
        used = psutil.Process(server.pid)
        for body in bodies:
            post(client, body)
        before, count = used.cpu_times(), 1500
        for number in range(count):
            post(client, bodies[number % len(bodies)])
        after = used.cpu_times()
        spent = after.user + after.system - before.user - before.system
        assert count / spent > 500, f"{count / spent:.0f} reviews per CPU second"
    finally:
        server.terminate()
        server.wait(30)


# ---- the command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["webhook", *arguments])
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--policy", "export-to"], "TLS only"),
        (["--policy", "export-to", "--cert", "/no/such", "--key", "/no/such"], "/no/such"),
        (["--policy", "namespace", "--cert", "x", "--key", "x"], "alters nothing"),
        (["--policy", "exprot-to"], "did you mean export-to"),
    ],
)
def test_wrong_input_is_told(capsys: Any, arguments: list[str], told: str) -> None:
    code, _, said = run(capsys, *arguments)
    assert code == 2 and told in said and "Traceback" not in said


def test_files_that_are_no_certificate_are_told(capsys: Any, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no certificate")
    code, _, said = run(capsys, "--policy", "export-to", "--cert", str(tmp_path / "a"), "--key", str(tmp_path / "a"))
    assert code == 2 and "PEM" in said


def test_a_port_that_is_taken_is_the_environment(capsys: Any, certificate: tuple[Path, ssl.SSLContext]) -> None:
    folder, _ = certificate
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        pair = ("--cert", str(folder / "tls.crt"), "--key", str(folder / "tls.key"))
        code, _, said = run(capsys, "--policy", "export-to", *pair, "--port", port)
    assert code == 3 and port in said


def test_manifests_are_whole(capsys: Any, certificate: tuple[Path, ssl.SSLContext]) -> None:
    folder, _ = certificate
    code, printed, _ = run(capsys, "--policy", str(folder / "policy.yaml"), "--manifests", "--namespace", "ops")
    objects = {held["kind"]: held for held in yaml.safe_load_all(printed)}
    assert code == 0
    assert {"Deployment", "Service", "ServiceAccount", "ConfigMap", "MutatingWebhookConfiguration"} <= set(objects)
    hook = objects["MutatingWebhookConfiguration"]["webhooks"][0]
    assert (hook["failurePolicy"], hook["sideEffects"], hook["admissionReviewVersions"]) == ("Ignore", "None", ["v1"])
    assert hook["timeoutSeconds"] <= 5 and hook["rules"][0]["resources"] == ["services"]
    assert {"kube-system", "istio-system", "ops"} <= set(hook["namespaceSelector"]["matchExpressions"][0]["values"])
    assert hook["clientConfig"]["service"]["name"] == objects["Service"]["metadata"]["name"]
    container = objects["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["ports"][0]["containerPort"] == objects["Service"]["spec"]["ports"][0]["targetPort"]
    assert yaml.safe_load(objects["ConfigMap"]["data"]["policy.yaml"]) == WRITTEN
    assert parse_objects([held for held in objects.values() if held["kind"] in ("Namespace", "Service", "Deployment")])
    bundled = manifests("", namespace="x", image="y", ca_bundle=b"pem")[-1]["webhooks"][0]["clientConfig"]
    assert base64.b64decode(bundled["caBundle"]) == b"pem"


def test_the_container_runs_what_the_command_takes(capsys: Any) -> None:
    arguments = next(o for o in manifests("", namespace="x", image="y") if o["kind"] == "Deployment")
    container = arguments["spec"]["template"]["spec"]["containers"][0]
    code, _, said = run(capsys, *container["args"][1:])
    assert code == 2 and "/policy/policy.yaml" in said, "every option is known; the file is not here"
