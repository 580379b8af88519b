"""The objects an istiod has seen."""

from __future__ import annotations

from collections.abc import Mapping

from pushsim.mesh import Object, Ref


class Store:
    """Objects by Ref, and by kind and namespace; in the order in which they were first written."""

    def __init__(self) -> None:
        self.objects: dict[Ref, Object] = {}
        self._placed: dict[tuple[str, str], dict[Ref, Object]] = {}

    def fork(self) -> Store:
        """An independent copy."""
        copy = Store()
        copy.objects = dict(self.objects)
        copy._placed = {place: dict(objects) for place, objects in self._placed.items()}
        return copy

    def write(self, written: Object) -> Object | None:
        """Keep an object; the one it replaces, if any."""
        before = self.objects.get(written.ref)
        self.objects[written.ref] = written
        self._placed.setdefault((written.ref.kind, written.ref.namespace), {})[written.ref] = written
        return before

    def delete(self, ref: Ref) -> Object | None:
        """Forget an object; what it was, None if it is not known."""
        before = self.objects.pop(ref, None)
        if before is not None:
            del self._placed[ref.kind, ref.namespace][ref]
        return before

    def get(self, ref: Ref) -> Object | None:
        """An object by name."""
        return self.objects.get(ref)

    def placed(self, kind: str, namespace: str) -> Mapping[Ref, Object]:
        """The objects of a kind in a namespace."""
        return self._placed.get((kind, namespace), {})

    def of_kind(self, kind: str) -> dict[Ref, Object]:
        """All objects of a kind."""
        return {ref: o for (k, _), placed in self._placed.items() if k == kind for ref, o in placed.items()}
