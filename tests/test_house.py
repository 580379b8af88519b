"""The house is tidy: modules import upwards only, libraries stay at home, pure modules have no clock and no files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pushsim"

#: Each module may import only what stands above it.
ORDER = """
errors units memo collecting workers hosts names figures mesh agents secrets metrics problems thresholds intervals zones
manifests files releases environment settings asking planner cost tables result topology policies scenario given
extensions audience conversion spreading shards requests registry resources blocks context gateways visibility
dependencies sizes generators plan
breaks conversation pricing control simulation kernel planners attribution moments observed tabulate runs
sources publication published
cases recordings preview diff conformance randomcase ads stub child istiod envoy replay record doctor
compare formats recommend sizing calibrate parity exports live sweeps plots reports webhook importers cluster
verbs proving cli __main__
""".split()  # noqa: SIM905

#: Where a library may be imported. Everything not named here may be imported anywhere.
HOMES = {
    "grpc": {"replay"},
    "xds": {"replay", "ads"},
    "envoy": {"replay", "ads", "calibrate"},
    "envoy_data_plane": {"sizes"},
    "simpy": {"simulation"},
    "numba": {"kernel"},
    "matplotlib": {"plots"},
    "jinja2": {"reports"},
    "aiohttp": {"stub", "webhook", "istiod", "envoy", "replay", "calibrate"},
    "lightkube": {"cluster", "replay"},
    "distributed": {"sweeps"},
    "typer": {"cli"},
    "ryml": {"manifests"},
}

#: No clock, no random global state, no file access.
PURE = set(ORDER[: ORDER.index("cases")]) | {"ads", "randomcase", "recommend"}
PURE -= {"memo", "collecting", "workers", "files", "scenario", "result", "cost", "runs", "publication", "published"}
IMPURE_MODULES = {"time", "socket", "subprocess", "tempfile", "shutil", "secrets"}
IMPURE_CALLS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "urandom"}
IMPURE_CALLS |= {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
IMPURE_CALLS |= {f"random.{name}" for name in ("random", "seed", "choice", "shuffle", "randint", "sample", "uniform")}

FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = node.module == "pushsim"
            yield from (f"pushsim.{alias.name}" for alias in node.names) if inside else [node.module]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_above_it_and_libraries_at_home(path):
    own = module_of(path)
    if own == "__init__":
        return
    assert own in ORDER, f"give {own} its place in ORDER"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "pushsim":
            other = rest.split(".")[0]
            above = other in ORDER and ORDER.index(other) < ORDER.index(own)
            assert other in (own, "__version__") or above, f"{own} imports {other}, which does not stand above it"
        else:
            assert own in HOMES.get(top, {own}), f"{top} is at home in {HOMES[top]}"


@pytest.mark.parametrize("path", [p for p in FILES if module_of(p) in PURE], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_pure_module_has_no_clock_no_global_chance_and_no_files(path):
    assert not IMPURE_MODULES & {name.split(".")[0] for name in imports(path)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            of = (
                f"{called.value.id}.{name}"
                if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)
                else ""
            )
            assert name not in IMPURE_CALLS and of not in IMPURE_CALLS, f"line {node.lineno} calls {of or name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_outgrows_400_lines(path):
    assert len(path.read_text().splitlines()) <= 400
