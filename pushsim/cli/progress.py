"""Progress bars on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def bars(names: Sequence[str], *, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar for each name; gives what is to be told (name, share done)."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=quiet or not console.is_terminal)
    tasks = {name: progress.add_task(name, total=1.0) for name in names}
    with progress:
        yield lambda name, share: progress.update(tasks[name], completed=share)
