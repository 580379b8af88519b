"""What a policy is: up to three parts, and how several become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from pushsim.mesh import Mesh, Object
from pushsim.settings import Settings
from pushsim.topology.selection import Section

if TYPE_CHECKING:
    from pushsim.topology.calls import Graph

#: Gives the call graph of the scenario, None where there is none.
Calls = Callable[[], "Graph | None"]


class Policy(Section):
    """A what-if. Its fields are its parameters; each of its three parts does nothing unless a policy says so.

    The policy you compare is the policy you deploy: `install` is what one applies to the cluster, `admit` is what the
    admission webhook runs, `control_plane` is what one sets at istiod.
    """

    name: ClassVar[str] = ""

    def prepared(self, calls: Calls) -> Policy:
        """The policy with what it needs of the call graph filled in."""
        return self

    def install(self, mesh: Mesh) -> tuple[Object, ...]:
        """Objects to add to that mesh; one that is there already is replaced."""
        return ()

    def admit(self, subject: Object, mesh: Mesh) -> Object:
        """The object as it is let into the cluster; the same one if nothing is to be altered.

        Runs on every object of the mesh and of every later change; mesh has all namespaces there are by then.
        """
        return subject

    @property
    def admits(self) -> bool:
        """Whether `admit` may alter anything: if not, objects need not pass through it."""
        return type(self).admit is not Policy.admit

    def control_plane(self, settings: Settings) -> Settings:
        """istiod as the policy wants it."""
        return settings

    def notes(self, settings: Settings) -> tuple[str, ...]:
        """What its figures leave out, or why it does less than it seems to, under these settings."""
        return ()


class Nothing(Policy):
    """The mesh as it is."""

    name: ClassVar[str] = "none"


class Composed(Policy):
    """Several policies, one after another."""

    name: ClassVar[str] = "composed"
    parts: tuple[Policy, ...] = Field(default=())

    def prepared(self, calls: Calls) -> Policy:
        return Composed(parts=tuple(part.prepared(calls) for part in self.parts))

    def install(self, mesh: Mesh) -> tuple[Object, ...]:
        objects = dict(mesh.objects)
        added = {}
        for part in self.parts:
            for held in part.install(Mesh(objects, mesh.proxies, mesh.mesh_config, mesh.env)):
                objects[held.ref] = added[held.ref] = held
        return tuple(added.values())

    def admit(self, subject: Object, mesh: Mesh) -> Object:
        for part in self.parts:
            subject = part.admit(subject, mesh)
        return subject

    @property
    def admits(self) -> bool:
        return any(part.admits for part in self.parts)

    def control_plane(self, settings: Settings) -> Settings:
        for part in self.parts:
            settings = part.control_plane(settings)
        return settings

    def notes(self, settings: Settings) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note for part in self.parts for note in part.notes(settings)))


def root_namespace(mesh: Mesh) -> str:
    """Where mesh-wide configuration lives."""
    return str(mesh.mesh_config.get("rootNamespace") or "istio-system")
