"""A comparison and its verdicts as text that other tools read: Markdown, JUnit XML, SARIF."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pushsim.breaks import Break
from pushsim.compare import Column, Comparison
from pushsim.figures import HEADLINES, shown, unit
from pushsim.intervals import Interval
from pushsim.thresholds import Verdict

#: Rows of a comparison that are not among the headlines.
_MORE = (("sidecar CPU, mean cores", "sidecar_cpu_cores.mean"),)
#: Headlines that say what another one says, too.
_SAME = ("bytes_sent_per_s", "converged_prometheus_s.p99", "changes")
ROWS = tuple((title, path) for title, path in (*HEADLINES, *_MORE) if path not in _SAME)
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def _cell(found: Interval | None, of_unit: str, before: str = "") -> list[str]:
    """The estimate and, below it, its interval."""
    told = [before + shown(found.value if found else None, of_unit)]
    if found is not None and found.low != found.high:
        told.append(f"[{shown(found.low, of_unit)}, {shown(found.high, of_unit)}]")
    return told


def table(comparison: Comparison) -> list[list[str]]:
    """Rows of text: a title, then a cell per column, with the ratio to the first and 95 % intervals over the seeds."""
    rows = []
    first = comparison.columns[0]

    def cell(column: Column, path: str) -> str:
        told = _cell(column.figure(path), unit(path))
        ratio = comparison.ratio(column, path) if column is not first else None
        return "\n".join([*told, *_cell(ratio, "ratio", "x")] if ratio else told)

    for title, path in ROWS:
        if any(column.figure(path) for column in comparison.columns):
            rows.append([title, *(cell(column, path) for column in comparison.columns)])
    summaries = comparison.summaries()
    if comparison.price_per_gb is not None:
        money = [summaries[column.name].get("money") for column in comparison.columns]
        rows.append(["transfer across zones, per month", *(f"{m['per_month']:.2f}" if m else "-" for m in money)])
    counts = [summaries[column.name]["breaks"] for column in comparison.columns]
    cells = [f"{c['calls']} calls, {c['routes']} routes" if c["all"] else "nothing" for c in counts]
    rows.append(["breaks", "-", *cells[1:]])
    return rows


def footnotes(comparison: Comparison) -> list[str]:
    """What a reader of the table should know."""
    told = []
    if len(comparison.seeds) > 1:
        seeds = f"{comparison.seeds[0]} to {comparison.seeds[-1]}"
        told.append(f"means over seeds {seeds}, [95 % confidence intervals], x ratio to {comparison.columns[0].name}")
    elif len(comparison.columns) > 1:
        told.append(f"one seed: no intervals (--seeds 5); x ratio to {comparison.columns[0].name}")
    if comparison.price_per_gb is not None:
        shares = {column.share for column in comparison.columns}
        if None in shares:
            told.append("no money where the mesh's Nodes carry no topology.kubernetes.io/zone")
        else:
            share = ", ".join(f"{100 * s:.0f} %" for s in sorted(s for s in shares if s is not None))
            told.append(f"{share} of the bytes cross a zone, at {comparison.price_per_gb:g} a GB, 730 h a month")
    if comparison.unseen:
        told.append(f"{comparison.unseen} of {comparison.calls} calls find no destination in the first column either")
    if comparison.calls is None:
        told.append("no call graph: only routes were checked for breaks (give the scenario `calls`)")
    for column in comparison.columns:
        told += [f"{column.name}: {note}" for note in column.notes]
    return told


def markdown(comparison: Comparison, verdicts: Sequence[Verdict]) -> str:
    """For a pull request's comment: GitHub's tables."""
    question = comparison.scenario.question or comparison.scenario.path
    names = [column.name for column in comparison.columns]
    lines = [f"### {_escaped(question)}", "", _row(["", *map(_escaped, names)]), _row(["---", *["---:"] * len(names)])]
    lines += [_row([_escaped(line).replace("\n", "<br>") for line in row]) for row in table(comparison)]
    if verdicts:
        lines += ["", "| | threshold |", "|---|---|"]
        lines += [_row(["**fails**" if verdict.met else "ok", _escaped(str(verdict))]) for verdict in verdicts]
    for column in comparison.columns:
        if column.breaks:
            summary = f"<summary>{_escaped(column.name)} breaks {len(column.breaks)}</summary>"
            lines += ["", f"<details>{summary}", "", *(f"- {_escaped(str(each))}" for each in column.breaks), ""]
            lines.append("</details>")
    notes = footnotes(comparison)
    if notes:
        lines += ["", *(f"- {_escaped(note)}" for note in notes)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\|*_`\[\]])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def junit(comparison: Comparison, verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: a suite per column, a case per threshold; without thresholds, a case that says it ran."""
    from junitparser import Failure, JUnitXml, TestCase, TestSuite

    whole = JUnitXml("pushsim compare")
    for column in comparison.columns:
        suite = TestSuite(column.name)
        for title, path in ROWS:
            figure = column.figure(path)
            if figure is not None:
                suite.add_property(path, shown(figure.value, unit(path)) + f" ({title})")
        of_column = [verdict for verdict in verdicts if verdict.variant == column.name]
        for verdict in of_column:
            case = TestCase(verdict.threshold.text, f"pushsim.{column.name}")
            if verdict.met:
                case.result = [Failure(str(verdict), "threshold")]
            suite.add_testcase(case)
        if not of_column:
            suite.add_testcase(TestCase("ran to the end", f"pushsim.{column.name}"))
        if column.breaks:
            next(iter(suite)).system_out = "\n".join(map(str, column.breaks))
        whole.add_testsuite(suite)
    whole.update_statistics()  # type: ignore[no-untyped-call]
    text: str = whole.tostring().decode()  # type: ignore[no-untyped-call]
    return text if text.endswith("\n") else text + "\n"


_RULES = (
    ("threshold", "A figure crossed a --fail-on threshold."),
    ("broken-call", "A call of the call graph finds its destination no longer visible."),
    ("broken-route", "A route of a gateway or VirtualService finds its destination no longer visible."),
)


def sarif(comparison: Comparison, verdicts: Sequence[Verdict]) -> str:
    """SARIF 2.1.0: failed thresholds as errors at the scenario, breaks as warnings at the object that causes them."""
    from pushsim import __version__

    results = [
        _finding(0, "error", str(verdict), *_place(comparison.scenario.path), "") for verdict in verdicts if verdict.met
    ]
    for column in comparison.columns:
        for each in column.breaks:
            rule = 1 if each.kind == "call" else 2
            uri, line = _place(each.file or comparison.scenario.path)
            results.append(_finding(rule, "warning", f"{column.name}: {each}", uri, line, _subject(each)))
    rules = [{"id": name, "shortDescription": {"text": told}} for name, told in _RULES]
    driver = {"name": "pushsim", "version": __version__, "rules": rules}
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(log, indent=1, ensure_ascii=False) + "\n"


def _subject(each: Break) -> str:
    return str(each.cause or each.subject)


def _finding(rule: int, level: str, text: str, uri: str, line: int, thing: str) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": uri or "scenario"}, "region": {"startLine": line}}
    }
    if thing:
        location["logicalLocations"] = [{"fullyQualifiedName": thing, "kind": "object"}]
    found = {"ruleId": _RULES[rule][0], "ruleIndex": rule, "level": level, "message": {"text": text}}
    return {**found, "locations": [location]}


def _place(source: str) -> tuple[str, int]:
    """(relative URI, line) of `mesh.yaml, document 3`; line 1 where the file cannot be read."""
    file, _, document = source.partition(", document ")
    path, line = Path(file), 1
    number = document.split("[")[0].split(",")[0]
    if number.isdigit():
        try:
            starts = _document_lines(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            starts = []
        line = starts[int(number) - 1] if int(number) <= len(starts) else 1
    if path.is_absolute():
        try:
            path = path.relative_to(Path.cwd())
        except ValueError:
            return path.as_uri(), line
    return path.as_posix(), line


def _document_lines(text: str) -> list[int]:
    """The line at which each document of a file begins; those of comments alone do not count."""
    found, inside = [], False
    for number, line in enumerate(text.split("\n"), 1):
        if line.rstrip() == "---":
            inside = False
        elif not inside and line.strip() and not line.lstrip().startswith("#"):
            inside = True
            found.append(number)
    return found
