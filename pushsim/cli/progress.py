"""Progress bars on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def bars(names: Sequence[str], *, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar for each name; gives what is to be told (name, share done): 0 as its mesh is begun to be built."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("{task.fields[doing]}", markup=False))
    progress = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
    tasks = {name: progress.add_task(name, total=1.0, doing="waits") for name in names}

    def tell(name: str, share: float) -> None:
        progress.update(tasks[name], completed=share, doing="" if share else "builds the mesh and its configuration")

    with progress:
        yield tell
