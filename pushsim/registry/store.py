"""The objects an istiod has seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pushsim.mesh import Object, Ref
from pushsim.registry.nested import Nested


class Store:
    """Objects by Ref, and by kind and namespace; in the order in which they were first written."""

    def __init__(self) -> None:
        self.objects: dict[Ref, Object] = {}
        self._placed: Nested[tuple[str, str], Ref, Object] = Nested()
        self._namespaces: dict[str, dict[str, None]] = {}  # by kind, in which there has been one, the first one first

    def fork(self) -> Store:
        """An independent copy."""
        copy = Store()
        copy.objects = dict(self.objects)
        copy._placed = self._placed.fork()
        copy._namespaces = {kind: dict(namespaces) for kind, namespaces in self._namespaces.items()}
        return copy

    def write(self, written: Object) -> Object | None:
        """Keep an object; the one it replaces, if any."""
        before = self.objects.get(written.ref)
        self.objects[written.ref] = written
        kind, namespace = written.ref.kind, written.ref.namespace
        self._placed.to_write((kind, namespace))[written.ref] = written
        self._namespaces.setdefault(kind, {})[namespace] = None
        return before

    def delete(self, ref: Ref) -> Object | None:
        """Forget an object; what it was, None if it is not known."""
        before = self.objects.pop(ref, None)
        if before is not None:
            del self._placed.to_write((ref.kind, ref.namespace))[ref]
        return before

    def get(self, ref: Ref) -> Object | None:
        """An object by name."""
        return self.objects.get(ref)

    def placed(self, kind: str, namespace: str) -> Mapping[Ref, Object]:
        """The objects of a kind in a namespace."""
        return self._placed.of((kind, namespace))

    def namespaces(self, kind: str) -> Collection[str]:
        """Namespaces in which there has been one of a kind."""
        return self._namespaces.get(kind, {}).keys()

    def of_kind(self, kind: str) -> dict[Ref, Object]:
        """All objects of a kind."""
        return {ref: o for n in self._namespaces.get(kind, ()) for ref, o in self._placed.of((kind, n)).items()}
