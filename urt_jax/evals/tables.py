"""The printed tables of an evaluation: figures as aligned text."""

from collections.abc import Mapping, Sequence

from urt_jax.evals.statistics import Estimate, Summary

Cell = str | int | float | Estimate
_GAP = "  "


def format_table(rows: Sequence[Mapping[str, Cell]], *, width: int = 100) -> str:
    """Return rows as aligned columns, named by the keys in order of first appearance.

    The first column, the row's name, is aligned left, the others right; a missing cell is empty. Columns beyond
    ``width`` continue in a second block that repeats the names.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:
        return ""
    columns = {name: [name, *(_text(row[name]) if name in row else "" for row in rows)] for name in names}
    sizes = {name: max(map(len, cells)) for name, cells in columns.items()}
    # A row with a name only is a heading, which may extend over its empty cells.
    sizes[names[0]] = max(len(names[0]), *(len(_text(row.get(names[0], ""))) for row in rows if len(row) > 1), 0)
    blocks: list[list[str]] = [[]]
    for name in names[1:]:
        used = sizes[names[0]] + sum(len(_GAP) + sizes[other] for other in blocks[-1])
        if blocks[-1] and used + len(_GAP) + sizes[name] > width:
            blocks.append([])
        blocks[-1].append(name)
    return "\n\n".join(_block(columns, sizes, names[0], block) for block in blocks)


def result_rows(
    summaries: Mapping[str, Mapping[str, Summary]], baselines: Mapping[str, float] | None = None
) -> list[dict[str, Cell]]:
    """Return the standard result table: a line per model, its modes indented below, blind baselines last."""
    rows: list[dict[str, Cell]] = []
    for model, modes in summaries.items():
        rows.append({"model": model})
        for mode, summary in modes.items():
            agreement = summary.score_agreement
            rows.append(
                {
                    "model": f" {mode}",
                    "accuracy": summary.accuracy,
                    "consistency": summary.position_consistency,
                    "parse failures": summary.parse_failure,
                    "scores = answer, n": f"{agreement} {agreement.n}" if agreement.n else str(agreement),
                }
            )
    if baselines:
        rows.append({"model": "blind baselines"})
        rows += [{"model": f" {name}", "accuracy": value} for name, value in baselines.items()]
    return rows


def part_rows(summaries: Mapping[str, Mapping[str, Summary]]) -> list[dict[str, Cell]]:
    """Return accuracy per task, difficulty and novelty, a row per model and mode."""
    return [
        {
            "accuracy of": f"{model}, {mode}",
            **{name: part.accuracy for name, part in summary.parts.items()},
        }
        for model, modes in summaries.items()
        for mode, summary in modes.items()
    ]


def _text(cell: Cell) -> str:
    return f"{100 * cell:.1f}" if isinstance(cell, float) else str(cell)


def _block(columns: Mapping[str, list[str]], sizes: Mapping[str, int], first: str, names: Sequence[str]) -> str:
    lines = [
        _GAP.join([cells[0].ljust(sizes[first]), *(cell.rjust(sizes[name]) for cell, name in zip(cells[1:], names))])
        for cells in zip(columns[first], *(columns[name] for name in names))
    ]
    rule = "─" * max(map(len, lines))
    return "\n".join([lines[0].rstrip(), rule, *(line.rstrip() for line in lines[1:])])
