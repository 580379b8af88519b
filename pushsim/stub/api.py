"""The HTTP face of a cluster: list, get and watch as client-go's reflectors and other real clients expect them.

Answers are JSON, whatever the client would rather have: clients decode by the answer's type. Writes are refused, but
for reviews, which write nothing: who has a token of ours is whom it names (`identity.token`), and may read secrets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from pushsim.errors import EnvironmentProblem
from pushsim.mesh import Change, Object, Ref
from pushsim.stub.cluster import Cluster, Event, Expired, Watch
from pushsim.stub.identity import access_review, token_review
from pushsim.stub.resources import BY_KIND, BY_PATH, RESOURCES, Resource
from pushsim.stub.selectors import Selector, field_selector, label_selector

log = logging.getLogger(__name__)

BOOKMARK_EVERY_S = 60.0
_encode = msgspec.json.Encoder().encode


class _Api:
    """The HTTP face of a cluster."""

    def __init__(
        self, cluster: Cluster, clock: Callable[[], float] = time.monotonic, *, writable: bool = False
    ) -> None:
        self.cluster, self._writable = cluster, writable
        self._clock = clock

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.strip("/")
        self.cluster.requests[path] = self.cluster.requests.get(path, 0) + 1
        writes = request.method in ("PATCH", "DELETE") and self._writable
        if request.method == "POST" and (review := _REVIEWS.get(path)) is not None:
            return _json(review(msgspec.json.decode(await request.read())), 201)
        if request.method not in ("GET", "HEAD") and not writes:
            return _status(403, "Forbidden", f"{request.method} {request.path}: this API is read-only")
        if path == "version":
            return _json({"major": "1", "minor": "33", "gitVersion": "v1.33.0"})
        if path in ("healthz", "livez", "readyz"):
            return web.Response(text="ok")
        if (discovery := _discovery(path)) is not None:
            return _json(discovery)
        match = path.split("/")
        if match[0] == "api" and len(match) > 1:
            group, version, rest = "", match[1], match[2:]
        elif match[0] == "apis" and len(match) > 2:
            group, version, rest = match[1], match[2], match[3:]
        else:
            return self._unknown(path)
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        resource = BY_PATH.get((group, rest[0])) if 1 <= len(rest) <= 2 else None
        if resource is None or version not in resource.versions:
            return self._unknown(path)
        view = _View(resource, version, namespace, request)
        if len(rest) == 2 and writes:
            return await self._write(view, rest[1], request)
        if len(rest) == 2:
            body = self.cluster.get(resource, namespace, rest[1])
            if body is None:
                return _status(404, "NotFound", f'{resource.plural} "{rest[1]}" not found')
            return _json(view.show(body))
        try:
            view.select(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
        except ValueError as problem:
            return _status(400, "BadRequest", str(problem))
        if request.query.get("watch") in ("true", "1"):
            return await self._watch(view, request)
        items = [view.show(o) for o in self.cluster.objects(resource, namespace) if view.selected(o)]
        metadata: dict[str, Any] = {"resourceVersion": str(self.cluster.version)}
        begun, limit = request.query.get("continue", ""), request.query.get("limit", "")
        if begun and begun.split(":")[0] != metadata["resourceVersion"]:
            return _status(410, "Expired", "the list has changed since its first page; begin it anew")
        if limit.isdigit() and int(limit) and request.query.get("resourceVersion") != "0":  # as an API server's cache
            start = int(begun.split(":")[1]) if begun else 0
            end = start + int(limit)
            if end < len(items):
                metadata |= {"continue": f"{metadata['resourceVersion']}:{end}", "remainingItemCount": len(items) - end}
            items = items[start:end]
        kind = "PartialObjectMetadataList" if view.partial else f"{resource.kind}List"
        api = "meta.k8s.io/v1" if view.partial else view.api_version
        return _json(
            {
                "kind": kind,
                "apiVersion": api,
                "metadata": metadata,
                "items": items,
            }
        )

    async def _write(self, view: _View, name: str, request: web.Request) -> web.Response:
        """A server-side apply, which replaces the whole object here, or a deletion; with dryRun nothing is kept."""
        resource, dry = view.resource, "dryRun" in request.query
        ref = Ref(resource.kind, view.namespace, name)
        if view.namespace and self.cluster.get(BY_KIND["Namespace"], "", view.namespace) is None:
            return _status(404, "NotFound", f'namespaces "{view.namespace}" not found')
        if request.method == "DELETE":
            if self.cluster.held(ref) is None:
                return _status(404, "NotFound", f'{resource.plural} "{name}" not found')
            if not dry:
                self.cluster.write(Change((), (ref,)))
            return _json({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        body = msgspec.json.decode(await request.read())
        if not dry:
            self.cluster.write(Change((Object(ref, body),)))
        return _json(view.show(body if dry else self.cluster.held(ref) or body))

    def _unknown(self, path: str) -> web.Response:
        self.cluster.unknown.add(path)
        log.debug("unknown path %s", path)
        return _status(404, "NotFound", "the server could not find the requested resource")

    async def _watch(self, view: _View, request: web.Request) -> web.StreamResponse:
        """Stream events until the client goes, its time is up, or the events it needs are compacted."""
        query = request.query
        timeout = float(query.get("timeoutSeconds") or 3600)
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        start = query.get("resourceVersion") or "0"
        if not start.isdigit():
            return _status(400, "BadRequest", f"invalid resource version {start!r}")
        initial = query.get("sendInitialEvents") == "true" or (start == "0" and "sendInitialEvents" not in query)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        watch = Watch(view.resource, self.cluster.version if initial else int(start))
        first = b""
        if initial:
            held = (o for o in self.cluster.objects(view.resource, view.namespace) if view.selected(o))
            first = b"".join(_line("ADDED", view.show(o)) for o in held)
            if query.get("sendInitialEvents") == "true" and bookmarks:
                first += _line("BOOKMARK", view.bookmark(watch.sent, end_of_initial=True))
        self.cluster.watches.append(watch)
        try:
            await response.prepare(request)
            if first:
                await response.write(first)
            end = self._clock() + timeout
            bookmark_at = self._clock() + BOOKMARK_EVERY_S
            while True:
                watch.wake.clear()
                upto = self.cluster.version
                try:
                    events = self.cluster.since(view.resource, watch.sent)
                except Expired:
                    gone = _status_body(410, "Expired", f"too old resource version: {watch.sent}")
                    await response.write(_line("ERROR", gone))
                    break
                lines = b"".join(line for event in events if (line := view.event(event)))
                if lines:
                    await response.write(lines)
                watch.sent = max(watch.sent, upto)
                now = self._clock()
                if bookmarks and (now >= bookmark_at or now >= end):
                    await response.write(_line("BOOKMARK", view.bookmark(watch.sent)))
                    bookmark_at = now + BOOKMARK_EVERY_S
                if now >= end:
                    break
                try:
                    async with asyncio.timeout(max(0.0, min(end, bookmark_at) - now)):
                        await watch.wake.wait()
                except TimeoutError:
                    pass
        except (ConnectionResetError, asyncio.CancelledError):
            return response
        finally:
            self.cluster.watches.remove(watch)
        await response.write_eof()
        return response


#: By path, how a review is answered.
_REVIEWS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "apis/authentication.k8s.io/v1/tokenreviews": token_review,
    "apis/authorization.k8s.io/v1/subjectaccessreviews": access_review,
}


class _View:
    """How one request wants a collection shown: version, namespace, selectors, whole objects or metadata only."""

    def __init__(self, resource: Resource, version: str, namespace: str, request: web.Request) -> None:
        self.resource = resource
        self.namespace = namespace
        self.api_version = f"{resource.group}/{version}" if resource.group else version
        self.partial = "as=PartialObjectMetadata" in request.headers.get("Accept", "").split(",")[0]
        self._selectors: tuple[Selector, ...] = ()

    def select(self, labels: str, fields: str) -> None:
        self._selectors = tuple(s for s in (label_selector(labels), field_selector(fields)) if s is not None)

    def selected(self, body: Mapping[str, Any]) -> bool:
        if self.namespace and body["metadata"].get("namespace", "") != self.namespace:
            return False
        return all(selector(body) for selector in self._selectors)

    def show(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self.partial:
            return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body["metadata"]}
        return {**body, "kind": self.resource.kind, "apiVersion": self.api_version}

    def bookmark(self, version: int, end_of_initial: bool = False) -> Mapping[str, Any]:
        metadata: dict[str, Any] = {"resourceVersion": str(version), "creationTimestamp": None}
        if end_of_initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        return self.show({"metadata": metadata})

    def event(self, event: Event) -> bytes:
        """The line of an event as this watcher must see it, b"" if it need not.

        An object that stops matching the selectors is deleted to this watcher, one that starts matching is added.
        """
        now = event.type != "DELETED" and self.selected(event.body)
        before = event.before is not None and self.selected(event.before)
        if not now and not before:
            return b""
        kind = "DELETED" if not now else "MODIFIED" if before else "ADDED"
        return _line(kind, self.show(event.body))


def _line(kind: str, body: Mapping[str, Any]) -> bytes:
    return _encode({"type": kind, "object": body}) + b"\n"


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=_encode(body), status=status, content_type="application/json")


def _status_body(code: int, reason: str, message: str) -> dict[str, Any]:
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": reason, "code": code}


def _status(code: int, reason: str, message: str) -> web.Response:
    return _json(_status_body(code, reason, message), code)


def _discovery(path: str) -> dict[str, Any] | None:
    """What kubectl and other general clients ask first: which groups, versions and resources there are."""
    if path == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "apis":
        groups = {r.group: r.versions for r in RESOURCES if r.group}
        listed = []
        for group, versions in groups.items():
            named = [{"groupVersion": f"{group}/{v}", "version": v} for v in versions]
            listed.append({"name": group, "versions": named, "preferredVersion": named[0]})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
    head, _, version = path.rpartition("/")
    group = "" if head == "api" else head.removeprefix("apis/")
    if head != "api" and not head.startswith("apis/"):
        return None
    held = [r for r in RESOURCES if r.group == group and version in r.versions]
    if not held:
        return None
    resources = [
        {"name": r.plural, "singularName": r.kind.lower(), "namespaced": r.namespaced, "kind": r.kind,
         "verbs": ["get", "list", "watch"]}
        for r in held
    ]  # fmt: skip
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}".lstrip("/"),
        "resources": resources,
    }


@asynccontextmanager
async def serve(
    cluster: Cluster, host: str = "127.0.0.1", port: int = 0, *, writable: bool = False
) -> AsyncIterator[str]:
    """Serve a cluster over HTTP while the context is open; yields its URL (`http://127.0.0.1:40123`).

    writable: clients may apply and delete, too, as a rehearsal for a real API server; nothing is validated.

    Port 0 takes a free one. Raises EnvironmentProblem if the port is taken.
    """
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _Api(cluster, writable=writable).handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as problem:
            raise EnvironmentProblem(
                f"the stub API can't listen on {host}:{port}: {problem.strerror or problem}"
            ) from None
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
