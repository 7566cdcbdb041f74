"""The printed table."""

from tests.evals.judged import judgement
from urt_jax.evals.statistics import Estimate, summarize
from urt_jax.evals.tables import format_table, part_rows, result_rows

JUDGED = [
    judgement("a", "given", 1, agreement=True, task="image_gen", difficulty="hard"),
    judgement("a", "swapped", 1, agreement=False, task="image_gen", difficulty="hard"),
]


def test_columns_line_up() -> None:
    table = format_table([{"model": "base", "n": 4}, {"model": "after grpo", "accuracy": Estimate(0.5, 0.25, 1.0, 4)}])
    assert table.splitlines() == [
        "model       n            accuracy",
        "─────────────────────────────────",
        "base        4",
        "after grpo     50.0 [25.0, 100.0]",
    ]


def test_a_wide_table_goes_on_below_with_the_names_repeated() -> None:
    row = {"model": "base", **{f"figure {n}": Estimate(1, 1, 1, 1) for n in range(6)}}
    table = format_table([row], width=60)
    assert max(map(len, table.splitlines())) <= 60
    assert table.count("base") == 3
    assert table.count("100.0 [100.0, 100.0]") == 6


def test_no_rows_are_no_table() -> None:
    assert format_table([]) == ""


def test_the_standard_table_holds_every_figure_in_100_columns() -> None:
    summary = summarize(JUDGED)
    rows = result_rows({"rejection sampling": {"greedy": summary, "sampled": summary}}, {"one candidate only": 0.571})
    table = format_table(rows)
    assert max(map(len, table.splitlines())) <= 100
    assert "\n\n" not in table  # one block
    for text in (
        "rejection sampling",
        " greedy",
        "50.0 [50.0, 50.0]",
        "0.0 [0.0, 0.0]",
        "] 2",
        "57.1",
        "consistency",
    ):
        assert text in table, text


def test_parts_have_a_column_a_task_and_difficulty() -> None:
    table = format_table(part_rows({"base": {"greedy": summarize(JUDGED)}}))
    assert table.splitlines()[0].split() == ["accuracy", "of", "image_gen", "hard"]
    assert "base, greedy" in table


def test_a_heading_runs_over_its_empty_cells() -> None:
    table = format_table([{"m": "a long heading"}, {"m": " x", "figure": Estimate(1, 1, 1, 1)}])
    assert table.splitlines()[2:] == ["a long heading", " x  100.0 [100.0, 100.0]"]
