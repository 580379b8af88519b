"""What a user is told when something is wrong: which file, which document, which field, and what to do.

Every error that may reach a user is a `PushsimError`; its `exit_code` is part of the contract
(1 a check failed, 2 bad input, 3 the environment, 4 a defect of ours, 130 interrupted). The command line prints
`error.typed()` and never a traceback.

Both are told the same, in their own words: a Problem's field and remedy name what was given as an option (`--fail-on`,
`--baseline FILE`), `str` says the keyword of the function instead (`fail_on`, `baseline=FILE`).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf, isfinite

#: More runs than anybody waits for: a slip of the pen.
MOST_RUNS = 100_000


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the input, said so that it can be mended without asking anybody.

    message:  what is wrong, in one sentence.
    where:    file and document ("mesh.yaml, document 3"), "" if it is not about a file.
    field:    path of the field inside the document ("spec.egress[0].hosts[1]"), "" if it is about the whole; or an
              option of the command line, like `--fail-on`.
    remedy:   what to do about it, "" only if the message says so already; may name options, too.
    """

    message: str
    where: str = ""
    field: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        """For whoever called a function."""
        return self._told(_keywords(self.field), _keywords(self.remedy))

    def typed(self) -> str:
        """For whoever typed a command."""
        return self._told(self.field, self.remedy)

    def _told(self, field: str, remedy: str) -> str:
        place = ": ".join(part for part in (self.where, field) if part)
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} ({remedy})" if remedy else text


#: An option, with what stands for its value; and whole commands, which are none.
_OPTION = re.compile(r"`[^`]*`|(?<![\w-])--([a-z]+(?:-[a-z]+)*)( (?=[A-Z]))?")


def _keywords(text: str) -> str:
    """Options as the parameters of functions: `price_per_gb` and `out=DIR`."""

    def keyword(found: re.Match[str]) -> str:
        name, value = found.groups()
        return f"{name.replace('-', '_')}{'=' if value else ''}" if name else found[0]

    return _OPTION.sub(keyword, text) if "--" in text else text


def meant(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`did you mean X?` of the nearest of the known names, "" if none is near (by difflib, in any case)."""
    names = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), names, 1, cutoff)
    return f"did you mean {names[near[0]]}?" if near else ""


def no_proxy(where: str, field: str = "", option: str = "--inject=all") -> Problem:
    """There is nobody to push to."""
    remedy = f"give manifests with injected pods, or {option} to count every pod as injected"
    return Problem("no proxy found: no pod of the mesh is injected", where, field, remedy)


def reason(error: Exception) -> str:
    """What it says; of the system's own errors without their number and file, which is told beside it."""
    return str(getattr(error, "strerror", None) or error)


class PushsimError(Exception):
    """Base of everything a user is told; a bare one is a defect of ours."""

    exit_code = 4

    def typed(self) -> str:
        """For whoever typed a command; `str` is for whoever called a function."""
        return str(self)


class CheckFailed(PushsimError):
    """A threshold, gate, parity or conformance check failed."""

    exit_code = 1


class InputError(PushsimError):
    """Bad input: all problems found, not only the first; one line each."""

    exit_code = 2

    def __init__(self, problems: Iterable[Problem] | Problem | str) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def typed(self) -> str:
        return "\n".join(problem.typed() for problem in self.problems)


class NotThere(InputError, KeyError):
    """What was looked up by a name that nothing has: a KeyError, too, as mappings promise to raise."""

    __str__ = Exception.__str__  # KeyError's own quotes it


class EnvironmentProblem(PushsimError):
    """What surrounds us is missing or broke: no istiod, no cluster, a port taken, istiod died."""

    exit_code = 3


def expected(value: object, kinds: type | tuple[type, ...], name: str, wanted: str, remedy: str = "") -> None:
    """Raises InputError, for whoever called a function, where a value is of none of these kinds."""
    if not isinstance(value, kinds):
        its = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        text = " ".join(repr(value).split()) if isinstance(value, str | int | float) else ""
        raise InputError(Problem(f"{name} must be {wanted}, not {its} {text[:40]}".rstrip(), remedy=remedy))


def chosen(value: object, names: Iterable[str], of: str) -> None:
    """Raises InputError, for whoever called a function, where a value is none of these names."""
    known = list(names)
    if value not in known:
        raise InputError(Problem(f"{of} must not be {value!r}", remedy=_of_these(value, known)))


def not_there(name: object, names: Iterable[str], of: str, field: str = "") -> NotThere:
    """What to raise where something was looked up by a name, and these are what there is."""
    return NotThere(Problem(f"there is no {of} {name!r}", field=field, remedy=_of_these(name, list(names))))


def _of_these(value: object, known: Sequence[str]) -> str:
    """The nearest of the known names, or all of them."""
    near = meant(value, known) if isinstance(value, str) else ""
    return near or (f"known: {listed(known)}" if known else "there is none")


def listed(names: Sequence[str], most: int = 100) -> str:
    """The names, as far as anybody would read them."""
    more = f", … ({len(names):,} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def at_least_one(value: object, of: str) -> None:
    """Raises InputError, for whoever called a function, where a value is no whole number above 0 that one may mean."""
    expected(value, int, of, "a whole number")
    if isinstance(value, int) and value < 1:
        raise InputError(Problem(f"{of} must be 1 or more, not {value}"))
    if isinstance(value, int) and value > MOST_RUNS:
        raise InputError(Problem(f"{of} must be {MOST_RUNS:,} at most, not {value:,}"))


def within(value: object, least: float, most: float, of: str) -> None:
    """Raises InputError, for whoever called a function, where a value is no finite number of that range."""
    expected(value, (int, float), of, "a number")
    if isinstance(value, int | float) and not (isfinite(value) and least <= value <= most):
        range_ = f"{least:g} or more" if most == inf else f"{least:g} to {most:g}"
        raise InputError(Problem(f"{of} must be {range_}, not {value:g}"))


#: What to do where the file system refuses something.
_REMEDIES = {
    errno.EACCES: "choose a place that you may write to",
    errno.EPERM: "choose a place that you may write to",
    errno.EROFS: "choose a place that you may write to",
    errno.ENOSPC: "make room, or write elsewhere",
    errno.EDQUOT: "make room, or write elsewhere",
    errno.EISDIR: "give a file",
    errno.ENOTDIR: "a part of the path is a file: give a folder",
}


@contextmanager
def writing(path: object) -> Iterator[None]:
    """What the file system refuses within the block is told as the environment's: that path cannot be written."""
    try:
        yield
    except FileExistsError:  # of a folder that is made
        raise EnvironmentProblem(f"{path}: cannot be written: a file has that name (give a folder)") from None
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the path")
        raise EnvironmentProblem(f"{path}: cannot be written: {error.strerror or error} ({remedy})") from None
