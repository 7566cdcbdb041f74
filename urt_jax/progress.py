"""Progress of long loops: a bar on a terminal, else one plain line every half minute and at the end."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

LINE_S = 30.0  # between two lines without a terminal: some 3,000 lines a day


class Lines(tqdm):
    """A progress bar that writes plain lines instead of carriage returns, which would fill a log."""

    clock: Callable[[], float] = staticmethod(time.monotonic)
    disable: bool

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._told_at, self._told_n = self.clock(), -1
        super().__init__(*args, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write a line if the last one is at least ``LINE_S`` old."""
        if self.clock() - self._told_at >= LINE_S:
            self._tell()

    def close(self) -> None:
        """Write the last line."""
        if not self.disable:
            self._tell()
            self.disable = True  # the rest of tqdm's closing is for terminals
            self._decr_instances(self)

    def _tell(self) -> None:
        if self.n == self._told_n and self.n:
            return
        self._told_at, self._told_n = self.clock(), self.n
        known = self.format_dict
        seconds = known["elapsed"]
        total = "" if self.total is None else f"/{self.total:,}"
        done = self.n - self.initial
        pace = f", {seconds / done:.2f} s/{self.unit}" if done > 0 else ""
        beside = f", {self.postfix}" if self.postfix else ""
        name = f"{self.desc.removesuffix(': ')} " if self.desc else ""
        self.fp.write(f"{name}{self.n:,}{total} {self.unit} in {seconds:.0f} s{pace}{beside}\n")
        self.fp.flush()


def progress(
    items: Iterable[T] | None = None, *, total: int | None = None, initial: int = 0, title: str, unit: str
) -> Any:
    """Return a progress bar (see ``tqdm``) over items, or one to ``update`` by hand; it writes to stderr.

    If stderr is not a terminal it writes plain lines. ``TQDM_DISABLE`` silences it.
    """
    settings: dict[str, Any] = {"total": total, "initial": initial, "desc": title, "unit": unit}
    if sys.stderr.isatty() or _in_notebook():
        return tqdm(items, dynamic_ncols=True, smoothing=0.1, **settings)
    return Lines(items, mininterval=1.0, **settings)


@contextmanager
def counting(*, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar; yield the function that moves it: ``show(done, total)``."""
    with progress(title=title, unit=unit) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def each(items: Iterable[T], *, title: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show a progress bar."""
    yield from progress(items, total=total, title=title, unit=unit)


def _in_notebook() -> bool:
    return "ipykernel" in sys.modules
