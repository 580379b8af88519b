"""YAML and JSON text to plain values, bounded and with kubectl's scalar types; no I/O.

A document is parsed by rapidyaml when the text is large and plain (4 to 6 times faster than any other safe parser
measured), and by libyaml (PyYAML's C parser) otherwise: rapidyaml keeps `~`, `True`, `yes`, hexadecimal numbers, tags
and aliases as strings when it writes JSON, so a document that may hold one of these goes the slow, exact way. Nothing
here constructs Python objects from tags, and what aliases expand to is counted before it is built.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from pushsim.errors import InputError, Problem

#: Text shorter than this is parsed by libyaml alone: it is fast enough there and has the better messages.
LARGE_BYTES = 256 * 1024
#: Values that one document's aliases may add; the largest real manifests stay far below, an alias bomb far above.
MAX_ALIAS_VALUES = 200_000
MAX_DEPTH = 200

_CONTROL = bytes([*range(9), *range(14, 32)])
_KEEP_ONE = "keep one of the two"
HELM_REMEDY = "render the chart first: helm template … | pushsim plan -"

_SEPARATOR = re.compile(rb"\n---(?=[ \t\n]|$)")  # quick to find; all there is in most files
_MARKER = re.compile(rb"(?m)^(?:---(?=[ \t\r\n]|$)|\.\.\.[ \t\r]*$|%(?:YAML|TAG)[^\n]*$)")
_ITEMS = re.compile(rb"(?m)^items:[ \t]*\n(?=- )")
_ITEM = re.compile(rb"(?m)^(?=- )")
_TOP_KEY = re.compile(rb"(?m)^[^-\s#]")
#: A plain scalar that rapidyaml would leave a string though kubectl gives it another type, an anchor, alias, tag or
#: merge key. False alarms (inside block scalars, say) only cost time.
_SUBTLE = re.compile(
    rb"[ \n,\[{](?=[~&*!<0-9+.yYnNoOTFiI-])(?:[~&*!][^ \n]|<<|(?:~|[Yy]es|YES|[Nn]o|NO|[Oo]n|ON|[Oo]ff|OFF|True|TRUE"
    rb"|False|FALSE|Null|NULL|[-+]?[Nn]an|[-+]?[Ii]nf(?:inity)?"
    rb"|[-+]?0[0-9A-Za-z][0-9A-Fa-f_]*|[+][0-9._]+|[-+]?\.[0-9A-Za-z]*|[0-9]+_[0-9_]*)"
    rb"(?=[ \t]*(?:[,\]}#:\n]|$)))"
)
#: Text that may nest deeper than the C stack bears: libyaml's node composer recurses.
_MANY_INDICATORS = re.compile(rb"(?:[-?:][ \t]+){100}")
_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML or JSON document as read.

    source: where ("mesh.yaml, document 3").
    data:   its plain value.
    folder: the folder that was given and in which its file was found, "" if the file itself was given.
    file:   that file.
    """

    source: str
    data: Any
    folder: str = ""
    file: str = ""


class _Bad(Exception):
    """A document that is no usable YAML; `line` counts from 1 within the text parsed, 0 if unknown."""

    def __init__(self, message: str, line: int = 0, remedy: str = "") -> None:
        super().__init__(message)
        self.message, self.line, self.remedy = message, line, remedy


def parse_text(text: bytes, source: str) -> list[Document]:
    """All documents of one file, empty ones left out; JSON if the text begins as JSON.

    Raises InputError with every problem found (each document is parsed on its own): syntax errors with their line,
    binary files, unrendered Helm templates, aliases that expand to too much, nesting that is too deep.
    """
    try:
        decoded = text.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        raise InputError(
            Problem(
                f"is not text (byte {error.start} is not UTF-8)", source, remedy="give YAML or JSON manifests in UTF-8"
            )
        ) from None
    if text.translate(None, _CONTROL) != text and (bad := re.search(r"[\x00-\x08\x0e-\x1f]", decoded)):
        line = decoded.count("\n", 0, bad.start()) + 1
        raise InputError(
            Problem(
                f"is a binary file (control character on line {line})", source, remedy="give YAML or JSON manifests"
            )
        )
    text = text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    if text.lstrip()[:1] in (b"{", b"["):
        try:
            data = msgspec.json.decode(text)
            if not _whole(data, text.count(b'"')):
                json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, f"{source}, document 1"))
            return [Document(f"{source}, document 1", data)]
        except (msgspec.DecodeError, RecursionError) as error:
            if source.endswith(".json"):
                raise InputError(Problem(f"is not valid JSON: {error}", source, remedy="mend the JSON there")) from None
    documents: list[Document] = []
    problems: list[Problem] = []
    for line, part in _split(text):
        where = f"{source}, document {len(documents) + len(problems) + 1}"
        try:
            data = _parse(part, large=len(text) > LARGE_BYTES)
        except _Bad as bad_document:
            problems.append(_problem(bad_document, part, where, line))
            continue
        if data is not None:
            documents.append(Document(where, data))
    if problems:
        raise InputError(problems)
    return documents


def _whole(data: Any, quotes: int) -> bool:
    """Whether a value has all of the JSON that it was decoded from: of a key that is there twice, one is lost."""
    return msgspec.json.encode(data).count(b'"') == quotes


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise InputError(Problem(_twice(twice), where, remedy=_KEEP_ONE))
    return found


def _twice(key: str) -> str:
    return f"'{key}' is given twice in one mapping"


def parse_one(text: str, source: str) -> Any:
    """The value of YAML that is one document, None if it is empty; InputError as `parse_text`."""
    documents = parse_text(text.encode(), source)
    if len(documents) > 1:
        raise InputError(Problem(f"holds {len(documents)} documents", source, remedy="keep one"))
    return documents[0].data if documents else None


def is_pilot_load(data: Any) -> bool:
    """It is a cluster file of pilot-load, and neither manifest nor scenario."""
    if not isinstance(data, dict) or data.keys() & {"apiVersion", "kind", "mesh"}:
        return False
    spaces = data.get("namespaces")
    return isinstance(spaces, list) and any(isinstance(space, dict) and "applications" in space for space in spaces)


def of_pilot_load(where: str, wanted: str) -> Problem:
    """What to tell of such a file where something else is wanted."""
    remedy = "make a scenario of it: `pushsim import pilot-load FILE --to scenario.yaml`"
    return Problem(f"is a cluster file of pilot-load, and no {wanted}", where, remedy=remedy)


def _problem(bad: _Bad, part: bytes, where: str, line: int) -> Problem:
    at = f" (line {line + bad.line})" if bad.line else ""
    if b"{{" in part and not bad.remedy:
        first = part[: part.index(b"{{")].count(b"\n")
        return Problem(
            f"holds '{{{{' of an unrendered Helm template (line {line + first + 1})", where, remedy=HELM_REMEDY
        )
    return Problem(f"{bad.message}{at}", where, remedy=bad.remedy or "mend the YAML there")


def _split(text: bytes) -> Iterator[tuple[int, bytes]]:
    """(line before, text) of each document: a marker in column 0 ends it wherever it stands (YAML 1.2, 9.1.2)."""
    if b"\n..." not in text and b"\n%" not in text and text[:1] not in (b"%", b"."):
        line = -1
        for part in _SEPARATOR.split(b"\n" + text):
            yield line, part
            line += part.count(b"\n") + 1
        return
    start = line = 0
    for marker in _MARKER.finditer(text):
        if marker[0].startswith(b"%") and text[start : marker.start()].strip():
            continue  # a directive stands only between documents
        part = text[start : marker.start()]
        yield line, part
        line += part.count(b"\n")
        start = marker.end()
    yield line, text[start:]


def _parse(part: bytes, large: bool) -> Any:
    if not part.strip():
        return None
    if not large:
        return _exact(part)
    items = _ITEMS.search(part)
    if items and len(part) > LARGE_BYTES and not re.search(rb"(?m)(?:[:\-] )[*][A-Za-z0-9_-]", part):
        # `kubectl get -o yaml`: item by item, so that one subtle scalar does not send 100 MB the slow way
        rest = part[items.end() :]
        tail = _TOP_KEY.search(rest)
        end = tail.start() if tail else len(rest)
        try:
            whole = _exact(part[: items.start()] + rest[end:])
            if isinstance(whole, dict) and "items" not in whole:
                return {**whole, "items": [_fast(item)[0] for item in _ITEM.split(rest[:end]) if item.strip()]}
        except (_Bad, TypeError, IndexError, KeyError):
            pass  # not the shape it seemed: the whole document again, for the message and its line
    return _fast(part)


def _fast(part: bytes) -> Any:
    if _SUBTLE.search(part):
        return _exact(part)
    import ryml  # imported late: only large files need it

    try:
        tree = ryml.parse_in_arena(part)
        written = ryml.emit_json_malloc(tree, tree.root_id())
        data = msgspec.json.decode(written) if written else None
        return data if written and _whole(data, written.count('"')) else _exact(part)
    except (ryml.ExceptionBasic, RuntimeError, msgspec.DecodeError, RecursionError, UnicodeError):
        return _exact(part)


def _exact(part: bytes) -> Any:
    loader = yaml.CSafeLoader(part)
    try:
        if part.count(b"[") + part.count(b"{") > 1000 or len(part) > 5_000_000 or _MANY_INDICATORS.search(part):
            _check_depth(part)
        node = loader.get_single_node()
        return None if node is None else _Builder().build(node, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "maximum nesting depth" in (error.problem or ""):  # libyaml's own bound, from PyYAML 6.0.4 on
            raise _too_deep(mark.line + 1 if mark else 0) from None
        said = ", ".join(text for text in (error.context, error.problem) if text)
        raise _Bad(f"YAML syntax error: {said}", mark.line + 1 if mark else 0) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _Bad(f"YAML error: {' '.join(str(error).split())}") from None
    finally:
        loader.dispose()


def _check_depth(part: bytes) -> None:
    depth = 0
    for event in yaml.parse(part, yaml.CSafeLoader):  # iterative, unlike composing
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _too_deep(event.start_mark.line + 1 if event.start_mark else 0)


def _too_deep(line: int) -> _Bad:
    return _Bad(f"is nested deeper than {MAX_DEPTH} levels", line, "flatten it; no manifest is that deep")


class _Builder:
    """Plain values of a node graph, as kubectl types them; counts what aliases add before building it."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.repeated = 0

    def build(self, node: yaml.Node, depth: int, shared: bool = False) -> Any:
        if depth > MAX_DEPTH:
            raise _too_deep(node.start_mark.line + 1)
        shared = shared or id(node) in self.seen
        self.seen.add(id(node))
        self.repeated += shared
        if self.repeated > MAX_ALIAS_VALUES:
            raise _Bad(
                f"aliases expand to more than {MAX_ALIAS_VALUES} values",
                node.start_mark.line + 1,
                "write the values out instead of nesting aliases (a YAML alias bomb?)",
            )
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, depth + 1, shared) for child in node.value]
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Bad("a mapping key is itself a mapping or list", key.start_mark.line + 1)
            built = self.build(value, depth + 1, shared)
            if key.tag == "tag:yaml.org,2002:merge":
                for source in built if isinstance(built, list) else [built]:
                    if not isinstance(source, dict):
                        raise _Bad("'<<' merges something that is no mapping", key.start_mark.line + 1)
                    merged = {**source, **merged}
            elif key.value in own:
                raise _Bad(_twice(key.value), key.start_mark.line + 1, _KEEP_ONE)
            else:
                own[key.value] = built
        return {**merged, **own}


def _scalar(node: yaml.ScalarNode) -> Any:
    """YAML 1.1 core types as kubectl reads them: no sexagesimals, no dates; exponents need no point."""
    text, kind = node.value, node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("true", "yes", "on", "y")
    plain = text.replace("_", "").lower()
    if kind == "int" and ":" not in text:
        sign, digits = (-1, plain[1:]) if plain[:1] == "-" else (1, plain.lstrip("+"))
        octal = len(digits) > 1 and digits[0] == "0" and digits[1:].isdigit()
        return sign * int(digits, 8 if octal else 0)
    if kind == "float" and ":" not in text:
        return float(plain.replace(".inf", "inf").replace(".nan", "nan"))
    if kind == "str" and not node.style and _EXPONENT.fullmatch(text):
        return float(text)
    return text
