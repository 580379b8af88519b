"""What copies share until one of them changes it: none sees what happens to another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pushsim import releases
from pushsim.manifests import parse_objects
from pushsim.mesh import Change, Mesh, Proxy
from pushsim.plan import Istiod
from pushsim.planners.owns import Own, Owns
from pushsim.registry.nested import Nested

_STEPS = st.lists(
    st.tuples(st.sampled_from(["fork", "write", "drop", "put"]), *[st.integers(0, 3)] * 4), min_size=1, max_size=40
)


@given(_STEPS)
def test_nested_mappings_are_as_if_each_copy_had_its_own(steps: list[tuple[str, int, int, int, int]]) -> None:
    copies: list[Nested[int, int, int]] = [Nested()]
    expected: list[dict[int, dict[int, int]]] = [{}]
    for what, which, key, inner, value in steps:
        number = which % len(copies)
        one, model = copies[number], expected[number]
        if what == "fork":
            copies.append(one.fork())
            expected.append({key: dict(of) for key, of in model.items()})
        elif what == "write":
            one.to_write(key)[inner] = value
            model.setdefault(key, {})[inner] = value
        elif what == "drop":
            one.to_write(key).pop(inner, None)
            model.setdefault(key, {}).pop(inner, None)
        else:
            one.put(key, {inner: value})
            model[key] = {inner: value}
        for copy, known in zip(copies, expected, strict=True):
            assert all(copy.of(key) == known.get(key, {}) for key in range(4))


def _service(name: str, selector: str) -> dict[str, object]:
    spec = {"clusterIP": "10.0.0.9", "selector": {"app": selector}, "ports": [{"name": "http", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def _istiod() -> tuple[Istiod, Proxy]:
    proxy = Proxy("web-0", "shop", "10.1.0.1", labels={"app": "web"})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-0", "namespace": "shop", "labels": proxy.labels},
    }
    mesh = Mesh({o.ref: o for o in parse_objects([_service("web", "web"), pod])}, (proxy,))
    return Istiod(mesh, releases.rules("1.24")), proxy


def test_a_copied_registry_has_its_own_services_and_targets() -> None:
    istiod, proxy = _istiod()
    other, before = istiod.fork(), istiod.registry.targets(proxy)
    services = istiod.registry.services()
    other.handle(Change(parse_objects([_service("more", "web")])))
    assert istiod.registry.services() is services
    assert istiod.registry.targets(proxy) == before
    assert {target.service.name for target in other.registry.targets(proxy)} == {"web", "more"}
    assert {service.name for service in other.registry.services()} == {"web", "more"}
    assert list(istiod.registry.store.of_kind("Service")) != list(other.registry.store.of_kind("Service"))


def test_what_groups_have_of_their_own_is_told_apart_in_copies() -> None:
    istiod, proxy = _istiod()
    first = istiod.connect(proxy).state
    owns = Owns({0: Own.of(first)})
    other = owns.fork()
    assert owns == other
    istiod.handle(Change(parse_objects([_service("more", "web")])))
    later = istiod.connect(proxy).state
    assert other.add(0, later) == 1
    assert (len(owns.of(0)), len(other.of(0))) == (1, 2)
    assert owns != other
    key = next(target.service.key for target in later.targets if target.service.name == "more")
    assert (owns.concerned([key]), other.concerned([key])) == (set(), {0})
    assert owns.concerned(t.service.key for t in first.targets) == {0}
