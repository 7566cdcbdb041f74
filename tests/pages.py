"""The pages as their tests read them: fenced blocks, what stands in backticks, commands with a config."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from urt_jax.config import with_defaults
from urt_jax.config.knobs import knobs
from urt_jax.errors import BadInputError
from urt_jax.main import load_config, read_arguments

ROOT = Path(__file__).parents[1]
AT_THE_TOP = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES = [*AT_THE_TOP, *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = ("bash", "python")
LANGUAGES = (*RUNNABLE, "json", "yaml", "text")

_FENCE = re.compile(r" *(```+|~~~+) *(\S*).*")
_MARK = re.compile(r" *<!-- not run: *(.*?) *-->")
_CONFIG = re.compile(r"(?:--config=)?(?:\./)?(configs/\w+\.py(?::\w+)?)")
_LATER = "there is no 'runs/"  # an earlier stage writes it


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, what it holds, and the line above it."""

    page: str
    line: int
    language: str
    text: str
    above: str

    @property
    def where(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"

    @property
    def opening(self) -> str:
        """What a test calls the block by: its first line without a comment."""
        return self.text.partition("\n")[0].partition(" # ")[0].rstrip()

    @property
    def why_not_run(self) -> str | None:
        """The reason in the comment above it; None where there is no such comment."""
        mark = _MARK.fullmatch(self.above)
        return mark[1] if mark else None


def blocks_of(page: str, text: str) -> list[Block]:
    """Return the fenced blocks of a page.

    Raises:
        ValueError: a block has no end.
    """
    lines, found, n = text.splitlines(), [], 0
    while n < len(lines):
        if opening := _FENCE.fullmatch(lines[n]):
            ends = [m for m in range(n + 1, len(lines)) if lines[m].strip() == opening[1]]
            if not ends:
                raise ValueError(f"{page}:{n + 1}: the block has no end")
            above = lines[n - 1] if n else ""
            found.append(Block(page, n + 1, opening[2], "\n".join(lines[n + 1 : ends[0]]), above))
            n = ends[0]
        n += 1
    return found


def spans_of(text: str) -> list[str]:
    """Return what stands between single backticks, blocks left out."""
    without_blocks = re.sub(r"^ *(```+|~~~+).*?^ *\1 *$", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_blocks)


def commands_of(text: str) -> Iterator[list[str]]:
    """Yield the words of every line that holds a config file or a knob."""
    for line in text.replace("\\\n", " ").splitlines():
        if _CONFIG.search(line) or "--config." in line:
            yield shlex.split(line, comments=True)


def command_problems(words: list[str]) -> list[str]:
    """Return why a command's config cannot be used; of knobs without a config, which ones no stage has.

    A config of which an earlier stage writes a file is sound.
    """
    given = [word for word in words if word.startswith("--config.") and "..." not in word and "<" not in word]
    config = next((match[1] for word in words if (match := _CONFIG.fullmatch(word))), None)
    if config is None:
        names = [word.removeprefix("--").partition("=")[0] for word in given]
        return [f"no stage has a knob {name}" for name in names if name not in knob_names()]
    try:
        read_arguments([f"--config={ROOT / config}", "--workdir=there", *given])
    except BadInputError as error:
        told = str(error).splitlines()
        return [f"{config}: {problem}" for problem in told[1:] or told if _LATER not in problem]
    return []


@cache
def knob_names() -> frozenset[str]:
    """Return the names of all knobs of all shipped configs, ``config.model.path`` and the like."""
    shipped = (with_defaults(load_config(path)) for path in (ROOT / "configs").glob("*.py"))
    return frozenset(re.sub(r"\[\d+\]", "", knob.name) for config in shipped for knob in knobs(config))


def block_problems(page: str, text: str, run: frozenset[tuple[str, str]]) -> list[str]:
    """Return what is wrong with the blocks of a page. ``run`` has (page, opening) of the blocks that a test runs."""
    found = []
    for block in blocks_of(page, text):
        is_run = (page, block.opening) in run
        if block.language not in LANGUAGES:
            found.append(f"{block.where}: language {block.language!r} is none of {', '.join(LANGUAGES)}")
        if block.why_not_run == "":
            found.append(f"{block.where}: 'not run' gives no reason")
        if block.language in RUNNABLE and is_run == (block.why_not_run is not None):
            told = "is run by a test, so it needs no comment" if is_run else "is run by no test: add it to RUN"
            found.append(f"{block.where}: {told}, or write <!-- not run: REASON --> on the line above")
        problems = (problem for words in commands_of(block.text) for problem in command_problems(words))
        found += [f"{block.where}: {problem}" for problem in problems]
    return found
