"""Plots and the page: honest, escaped, self-contained; in a browser sortable, on a phone, in print, in the dark."""

from __future__ import annotations

import asyncio
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import networkx as nx
import pandas as pd
import pytest
from browser import browsing
from conftest import outside

import pushsim as ps
from pushsim import plots
from pushsim.cli import main
from pushsim.mesh import Ref
from pushsim.parity import Compared, Parity, Row
from pushsim.plots.style import drawn
from pushsim.reports import html, report
from pushsim.tables import SCHEMAS, table_of

#: Names that would be more than text, if anything let them.
HOSTILE = (
    "<script>document.title='owned'</script>",
    "\"><img src=x onerror=document.title='owned'>",
    "</td></table><h1>owned</h1>",
    "$\\frac{1}{$ {{ 7*7 }} {% raw %} ]]>",
    "&lt;b&gt; \u202e '\" `",
)


def result(variant: str, scale: float = 1.0, names: tuple[str, ...] = ("a", "b")) -> ps.Result:
    delays = [["converged", share / 10, 0.02 * scale * (1 + share)] for share in range(11)]
    delays += [["received", share / 10, 0.1 + 0.02 * scale * (1 + share)] for share in range(11)]
    rows = {
        "timeline": [[float(s), 3, 2, 0, 5.0, 1e6 * scale, 0.5 * scale, 1, 2.5, 0.5] for s in range(4)],
        "churn": [[name, 3, 10.0, 1e6 * scale, 0.1] for name in names],
        "services": [["Service", name, name, 3, 10.0, 1e6 * scale / (n + 1), 0.1] for n, name in enumerate(names)],
        "proxies": [[n, "sidecar", name, f"{name}.{name}", 1, 10, 20, 10**6, 10**7] for n, name in enumerate(names)],
        "fan_out": [[one, other, 2.0 * scale, 1e5 * scale] for one in names for other in names],
        "delays": delays,
    }
    summary = {
        "source": "simulated",
        "changes": 12,
        "merged_pushes": 8,
        "proxy_pushes": 40,
        "bytes_sent": round(4e6 * scale),
        "converged_s": {"p50": 0.05, "p99": 0.22 * scale},
        "istiod_cpu_cores": {"mean": 0.5 * scale},
        "istiod_memory_bytes": {"mean": 2e8, "max": 3e8},
        "sidecar_memory_bytes": {"mean": 4e7, "p99": 5e7, "max": 5e7},
        "bounds": {"istiod_cpu_cores.mean": [0.2 * scale, 0.8 * scale]},
        "notes": [f"a note about {names[0]}"],
    }
    identity = {
        "scenario": {"id": "0123456789abcdef", "seed": 7, "release": "1.24", "duration_s": 4.0},
        "versions": {"pushsim": ps.__version__},
    }
    tables = {name: table_of(SCHEMAS[name], cells) for name, cells in rows.items()}
    return ps.Result(variant, summary, identity, True, tables)


def results(names: tuple[str, ...] = ("a", "b")) -> ps.Results:
    return ps.Results([result("before", 1.0, names), result("after", 0.5, names)], "What does it save?")


def every_plot(names: tuple[str, ...] = ("a", "b")) -> list[plots.Plot]:
    told = results(names)
    graph: nx.DiGraph[Ref] = nx.DiGraph()
    graph.add_edge(Ref("Service", names[0], names[0]), Ref("Service", names[1], names[1]))
    pairs = pd.DataFrame(
        {
            "metric": [f"converged_s.{n}" for n in names],
            "real": [1.0, 2.0] * (len(names) // 2) + [3.0] * (len(names) % 2),
            "simulated": 1.1,
        }
    )
    return [
        plots.before_after(told),
        plots.cdf(told),
        plots.timeline(told),
        plots.fan_out(told),
        plots.memory(told),
        plots.call_graph(graph, told["before"]),
        plots.parity(pairs, names[0]),
    ]


# ---- plots


@pytest.mark.parametrize("names", [("a", "b"), HOSTILE], ids=["plain", "hostile"])
def test_a_plot_is_an_svg_with_caption_and_no_markup_from_names(names):
    for plot in every_plot(names):
        tree = ElementTree.fromstring(plot.svg())
        tags = {element.tag.rpartition("}")[2] for element in tree.iter()}
        assert not tags & {"script", "img", "h1", "foreignObject", "a"}
        assert not [key for element in tree.iter() for key in element.attrib if key.lower().startswith("on")]
        if "Simulated" not in plot.title:
            assert "Istio 1.24, seed 7, 4 s" in " ".join(tree.itertext()), plot.title


def test_the_same_plot_has_the_same_bytes():
    assert [plot.svg() for plot in every_plot()] == [plot.svg() for plot in every_plot()]


def test_a_plot_is_saved_by_its_ending(tmp_path):
    plot = plots.memory(results())
    assert plot.save(tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert plot.save(tmp_path / "m.svg").read_text().startswith("<?xml")
    with pytest.raises(ps.PushsimError, match=r"\.svg or \.png"):
        plot.save(tmp_path / "m.gif")
    with pytest.raises(ps.PushsimError, match="cannot be written"):
        plot.save(tmp_path / "none" / "m.svg")


def test_bars_begin_at_zero_and_say_how_much_has_changed():
    plot = plots.before_after(results())
    assert all(axes.get_ylim()[0] == 0 for axes in plot.figure.axes)
    assert all(axes.get_ylim()[0] == 0 for axes in plots.memory(results()).figure.axes)
    assert "bytes sent, after: 2.0 MB -50 %" in plot.about


def test_istios_buckets_are_drawn():
    axes = plots.cdf(results()).figure.axes[0]
    upright = {line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1}
    assert {0.1, 0.5, 1, 3, 5, 10, 20, 30} <= upright


def test_a_replayed_run_is_drawn_by_the_shares_of_its_buckets():
    le = [0.1, 0.5, 1, 3, 5, 10, 20, 30]
    buckets = {"pilot_proxy_convergence_time": {"le": le, "counts": [5, 5, 0, 0, 0, 0, 0, 0, 0], "sum": 1.0}}
    replayed = ps.Result("real", {"source": "replayed", "histograms": buckets})
    dots = plots.cdf(ps.Results([replayed])).figure.axes[0].lines[0]
    assert list(dots.get_ydata()) == [0.5, 1, 1, 1, 1, 1, 1, 1]


def test_simulated_and_real_stand_side_by_side_in_detail():
    scenario = ps.Scenario.loads("mesh: {generate: {namespaces: 1, apps: [{name: a}]}}")
    rows = (Row("bytes_sent", 1.1, (1.0, 1.0), 0.2), Row("received_s.p99", 2.0, (1.0,), 0.2))
    one = Compared(HOSTILE[0], result("v"), (result("v"), result("v")), rows)
    plot = plots.parity_details(Parity(scenario, "1.24", "delta", {"v": one}))
    assert plot.about == "1 of 2 figures are within tolerance"
    assert "<script>" not in plot.svg()


def test_the_timeline_draws_what_is_known():
    labels = [axes.get_ylabel() for axes in plots.timeline(results()).figure.axes]
    assert any("push queue" in label for label in labels) and any("throttle" in label for label in labels)
    timeline = result("v").table("timeline")
    for place, name in ((8, "queue_length"), (9, "slots_in_use")):
        timeline = timeline.set_column(place, name, [[None] * len(timeline)])
    replayed = ps.Result("real", {"source": "replayed"}, tables={"timeline": timeline})
    assert len(plots.timeline(ps.Results([replayed])).figure.axes) == len(labels) - 2
    old = ps.Result("old", {}, tables={"timeline": timeline.drop_columns(["queue_length", "slots_in_use"])})
    assert len(plots.timeline(ps.Results([old])).figure.axes) == len(labels) - 2
    assert len(plots.timeline(ps.Results([old, result("v")])).figure.axes) == len(labels)


def test_a_run_that_pushes_nothing_says_so():
    silent = ps.Results([ps.Result("silent", {"proxy_pushes": 0})])
    for plot in (plots.cdf(silent), plots.fan_out(silent), plots.timeline(silent), plots.memory(silent)):
        assert plot.about
        ElementTree.fromstring(plot.svg())


def test_rare_namespaces_are_laid_together_and_nothing_is_lost():
    names = tuple(f"ns-{n:02d}" for n in range(12))
    plot = plots.fan_out(ps.Results([result("v", 1.0, names)]), most=5)
    image = plot.figure.axes[0].images[0].get_array()
    assert image.shape == (6, 6)
    assert image.sum() == 2.0 * 144


def test_ink_becomes_the_pages_own_colour():
    plot = drawn("t", "c", (2, 2), lambda figure: figure.subplots().set_title("x") and None)
    assert "#1a1a1b" in plot.svg()
    assert "#1a1a1b" not in plot.inline_svg()
    assert plot.inline_svg().startswith("<svg")


# ---- the page


class _Outline(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_needs_nothing_from_elsewhere():
    outline = _Outline(html(results()))
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert not (attributes.get(name) or "#").startswith(("http", "//", "file", "data:text")), (tag, attributes)
    assert not {tag for tag, _ in outline.tags} & {"link", "iframe", "object", "embed"}
    assert "@import" not in html(results())


def test_the_page_says_how_it_was_made():
    page = html(results())
    for text in (
        "0123456789abcdef",
        "1.24",
        "What does it save?",
        "a note about a",
        ps.__version__,
        "How this was made",
    ):
        assert text in page


def test_hostile_names_stay_text():
    plain, hostile = _Outline(html(results())), _Outline(html(results(HOSTILE)))
    assert {tag for tag, _ in hostile.tags} == {tag for tag, _ in plain.tags}
    assert sum(tag == "script" for tag, _ in hostile.tags) == 1
    assert sum(tag == "h1" for tag, _ in hostile.tags) == 1
    assert not [name for _, attributes in hostile.tags for name in attributes if name.startswith("on")]


def test_the_verb_writes_the_page(tmp_path, capsys):
    results().save(tmp_path / "r")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / "r"), "--to", str(tmp_path / "deep" / "out.html"), "--title", "A <title>"])
    assert ended.value.code == 0
    assert "A &lt;title&gt;" in (tmp_path / "deep" / "out.html").read_text()
    with pytest.raises(SystemExit) as ended:
        main(["report", str(tmp_path / "none"), "--to", str(tmp_path / "out.html")])
    assert ended.value.code == 2


@pytest.mark.browser
def test_a_real_browser_shows_sorts_prints_and_darkens_the_page(tmp_path):
    page = report(results(HOSTILE), tmp_path / "page.html", title="It <holds>")
    asyncio.run(_in_the_browser(outside("browser"), page, tmp_path))


async def _in_the_browser(binary: Path, path: Path, folder: Path) -> None:
    async with browsing(binary) as page:
        await page.emulate()
        await page.open(path)
        assert await page.value("document.title") == "It <holds>"
        assert await page.value("document.querySelectorAll('figure svg').length") == 5
        assert [address for address in page.requests if not address.startswith(("file:", "data:image/png"))] == []
        assert page.said == []

        column = """
        (() => { const table = [...document.querySelectorAll('section')]
            .find((s) => s.querySelector('h2').textContent === 'Dearest services').querySelector('table');
          const at = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent.trim() === 'bytes_sent');
          %s
          return JSON.stringify([...table.tBodies[0].rows].map((r) => Number(r.cells[at].dataset.value))); })()
        """
        click = "table.tHead.rows[0].cells[at].querySelector('button').click();"
        shuffled = json.loads(await page.value(column % ""))
        assert json.loads(await page.value(column % click)) == sorted(shuffled)
        assert json.loads(await page.value(column % click)) == sorted(shuffled, reverse=True)
        assert sorted(shuffled) != sorted(shuffled, reverse=True)

        await page.picture(folder / "light.png")
        ink = "getComputedStyle(document.body).color + getComputedStyle(document.querySelector('figure svg text')).fill"
        light = await page.value(ink)
        await page.emulate(scheme="dark")
        dark = await page.value(ink)
        assert set(re.findall(r"\d+, \d+, \d+", light)) == {"26, 26, 27"}
        assert set(re.findall(r"\d+, \d+, \d+", dark)) == {"232, 232, 234"}
        await page.picture(folder / "dark.png")

        await page.emulate(width=390, height=844)
        assert await page.value("document.documentElement.scrollWidth") <= 390
        await page.picture(folder / "phone.png")
        await page.emulate(media="print")
        assert (await page.pdf()).startswith(b"%PDF")
