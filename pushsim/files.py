"""Reads manifests from files, folders and standard input: the only I/O on the way from manifests to a Mesh.

And writes a file so that it is there whole, or not at all, or a marked block of one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pushsim.collecting import no_collections
from pushsim.errors import InputError, Problem, reason, writing
from pushsim.manifests import Inject, Loaded, LoadedChange, from_parsed, to_change
from pushsim.manifests.document import LARGE_BYTES, Document, parse_text
from pushsim.manifests.objects import parse
from pushsim.mesh import Mesh

SUFFIXES = (".yaml", ".yml", ".json")
Stdin = Callable[[], bytes] | None


def read_sources(paths: Sequence[str], stdin: Stdin = None) -> list[Document]:
    """The documents of files, folders (recursively, sorted, .yaml/.yml/.json) and `-` (what `stdin` returns).

    Raises InputError with every problem of every file: missing or unreadable, empty, binary, bad YAML or JSON,
    unrendered Helm templates, a folder without manifests.
    """
    documents, problems = _read(paths, stdin)
    if problems:
        raise InputError(problems)
    return documents


def load(paths: Sequence[str], *, namespace: str = "default", inject: Inject = "detect", stdin: Stdin = None) -> Loaded:
    """The mesh in these files; raises InputError with every problem of all of them, syntax and content at once."""
    with no_collections():
        documents, problems = _read(paths, stdin)
        parsed = parse(documents, namespace)
        parsed.problems[:0] = problems
        return from_parsed(parsed, inject=inject)


def load_change(
    path: str, *, namespace: str = "default", stdin: Stdin = None, mesh: Mesh | None = None
) -> LoadedChange:
    """The change in a file (or folder, or `-`), its workloads expanded relative to `mesh`; InputError as `load`."""
    documents, problems = _read([path], stdin)
    if problems:
        raise InputError([*problems, *parse(documents, namespace).problems])
    return to_change(documents, namespace=namespace, mesh=mesh, name=path)


def _read(paths: Sequence[str], stdin: Stdin) -> tuple[list[Document], list[Problem]]:
    documents: list[Document] = []
    problems: list[Problem] = []
    seen: set[Path] = set()
    for path in paths:
        try:
            for source, folder, text in _texts(path, stdin, seen, problems):
                try:
                    with _quiet() if len(text) > LARGE_BYTES else contextlib.nullcontext():
                        found = parse_text(text, source)
                    documents += [replace(d, folder=folder, file=source) for d in found]
                    if not found and not folder:  # kubectl, too, passes over what holds nothing in a folder
                        remedy = "give Kubernetes or Istio manifests"
                        problems.append(Problem("is empty: no document in it", source, remedy=remedy))
                except InputError as error:
                    problems += error.problems
        except InputError as error:
            problems += error.problems
    return documents, problems


def _texts(path: str, stdin: Stdin, seen: set[Path], problems: list[Problem]) -> Iterator[tuple[str, str, bytes]]:
    if path == "-":
        if stdin is None:
            raise InputError(Problem("standard input is not to be had here", "-", remedy="give a file or folder"))
        yield "standard input", "", stdin()
        return
    start = Path(path)
    files = [start]
    try:
        if start.is_dir():
            next(start.iterdir(), None)  # says at once if it may not be read: rglob is silent
            files = sorted(p for p in start.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not files:
                raise InputError(
                    Problem(
                        "no manifest in this folder", path, remedy=f"it needs files ending in {', '.join(SUFFIXES)}"
                    )
                )
        elif not start.exists():
            raise InputError(Problem("no such file or folder", path, remedy="check the path"))
    except OSError as error:
        raise InputError(_unreadable(path, error)) from None
    for file in files:
        try:
            if file.resolve() in seen:
                continue  # the same file, given twice: its objects would merge anyway
            seen.add(file.resolve())
            text = file.read_bytes()
        except OSError as error:
            problems.append(_unreadable(str(file), error))
            continue
        yield str(file), path if file != start else "", text


def read_text(path: Path) -> str:
    """A file's text. Raises InputError: it cannot be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(_unreadable(str(path), error)) from None
    except UnicodeDecodeError as error:
        message = f"is not text (byte {error.start} is not UTF-8)"
        raise InputError(Problem(message, str(path), remedy="write it in UTF-8")) from None


def _unreadable(path: str, error: OSError) -> Problem:
    return Problem(f"cannot be read: {reason(error)}", path, remedy="check the path and its permissions")


def write_whole(path: Path, text: str) -> Path:
    """Write a file whole or not at all, whenever the process ends, in a folder that is made if need be.

    Returns its path. Raises EnvironmentProblem.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def write_block(path: Path, name: str, text: str) -> None:
    """Write the block of a Markdown file between the lines `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    text: whole lines. Raises InputError: the file cannot be read or written, or has no such block.
    """
    begin, end = (f"<!-- {name}: {which} -->" for which in ("begin", "end"))
    try:
        whole = path.read_text(encoding="utf-8")
        before, rest = whole.split(begin)
        _, after = rest.split(end)
    except OSError as problem:
        raise InputError(Problem(f"cannot be read: {problem.strerror}", str(path), remedy="check the path")) from None
    except ValueError:
        message = "has no block for the table"
        raise InputError(Problem(message, str(path), remedy=f"add lines `{begin}` and `{end}`")) from None
    with writing(path):
        path.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """rapidyaml writes its errors to file descriptor 2 besides raising them; ours say the same with the file's name."""
    with contextlib.ExitStack() as stack:
        try:
            saved = os.dup(2)
        except OSError:  # no standard error at all
            yield
            return
        stack.callback(os.close, saved)
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), 2)
        stack.callback(os.dup2, saved, 2)
        yield
