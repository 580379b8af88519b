"""Child processes that die with us: by process id at the end of a context, and by the kernel if we are killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

# Runs before the child in its process: it dies with its parent, even when that is killed (PR_SET_PDEATHSIG, SIGKILL);
# the getppid closes the gap in which the parent may have gone already. Each proxy is an open file to an istiod.
_GUARD = """
import ctypes, os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
parent, cores = sys.argv[1:3]
if os.getppid() != int(parent): sys.exit(1)
if cores: os.sched_setaffinity(0, map(int, cores.split(",")))
os.execv(sys.argv[3], sys.argv[3:])
"""


async def spawn(
    arguments: Sequence[str], directory: Path, env: Mapping[str, str], cores: Sequence[int] | None = None
) -> asyncio.subprocess.Process:
    """Start a child in a directory with just that environment; both its outputs come as one stream.

    cores: which CPUs it may use (affinity). Call it from the main thread: the kernel ends the child with the thread
    that started it.
    """
    given = list(arguments)
    if sys.platform == "linux":
        places = ",".join(map(str, cores or ()))
        given = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), places, *given]
    return await asyncio.create_subprocess_exec(
        *given,
        cwd=directory,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        limit=1 << 20,
    )


async def drain(
    process: asyncio.subprocess.Process,
    tail: deque[str],
    log_file: Path | None = None,
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Keep the last lines of a child's log; all of it in a file if one is given; tell each line."""
    assert process.stdout is not None
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(log_file.open("w")) if log_file else None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            tail.append(text)
            if out:
                print(text, file=out)
            if on_line:
                on_line(text)


async def end(process: asyncio.subprocess.Process) -> None:
    """End a child: politely, then not; no harm if it has ended."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(3):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def last_words(tail: Sequence[str], lines: int = 15) -> str:
    """The last lines of a log, indented."""
    return "\n".join(f"  {line}" for line in list(tail)[-lines:]) or "  (it logged nothing)"


def ending(code: int | None) -> str:
    """How a child ended, in words."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def has_work(pid: int) -> bool:
    """Whether a thread of a process runs or waits for a processor; False where /proc does not tell (not Linux)."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False
    return any(_state(thread / "stat") in "RD" for thread in threads)


def _state(stat: Path) -> str:
    """The state letter of a thread in /proc, "-" if it is gone; what stands before it may hold any character."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "-"


class Taken(NamedTuple):
    """What a process takes of the machine: CPU seconds so far, and resident bytes."""

    cpu_s: float
    resident: int


def taken(pid: int) -> Taken | None:
    """What a process takes, None if it is gone."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return Taken(float(times.user + times.system), int(process.memory_info().rss))
    except psutil.Error:
        return None
