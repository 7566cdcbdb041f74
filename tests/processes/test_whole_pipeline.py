"""The whole recipe of ``scenes`` in two and in four processes: the parameters of one process, and every record once."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.processes.recorded import BOUNDARY
from tests.processes.together import REPOSITORY, run_to_end
from urt_jax.data.sources import read_examples
from urt_jax.evals.pairwise import read_judgements

PIPELINE = f"--config={REPOSITORY / 'configs' / 'pipeline.py'}:quick"
ROUNDING = 1e-5  # of a parameter after three trainings in a row
TRAINED = ("2-sft", "3-reject", "4-grpo")

pytestmark = pytest.mark.slow


def run(mode: str, count: int, folder: Path, rows: Path) -> Path:
    """Run the pipeline with its sampler watched, see ``recorded.py``, and return its folder."""
    recorded = Path(__file__).with_name("recorded.py")
    command = (sys.executable, str(recorded), mode, str(rows))
    run_to_end(count, [PIPELINE, "--workdir=run"], folder, command=command)
    return folder / "run"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the one-process run, with what it sampled."""
    folder = tmp_path_factory.mktemp("one")
    run("record", 1, folder, folder)
    return folder


def of_all(mode: str, rows: Path, count: int) -> list[dict[str, object]]:
    return [json.loads((rows / f"{mode}-{number}.json").read_text()) for number in range(count)]


@pytest.mark.parametrize("count", [2, 4])
def test_replaying_one_process_several_end_with_its_parameters(rows: Path, tmp_path: Path, count: int) -> None:
    several = run("replay", count, tmp_path, rows)
    for stage in TRAINED:
        one, other = (load_file(folder / stage / "model" / "model.safetensors") for folder in (rows / "run", several))
        apart = {name: float(np.abs(one[name] - other[name]).max()) for name in one}
        print(count, stage, max(apart.values()))
        assert max(apart.values()) < ROUNDING, (stage, apart)
    told = of_all("replay", rows, count)
    assert sum(int(part["compared"]) for part in told) >= int(told[0]["rows"])
    distances = [distance for part in told for distance in part["distances"]]
    print(f"{count} processes: {len(distances)} of {told[0]['rows']} rows differ, at {distances}")
    assert max(distances, default=0.0) < BOUNDARY
    assert_every_item_once(several, rows / "run")


@pytest.mark.parametrize("count", [2, 4])
def test_running_free_every_item_is_there_once(rows: Path, tmp_path: Path, count: int) -> None:
    several = run("free", count, tmp_path, rows)
    assert_every_item_once(several, rows / "run", same_texts=False)


def assert_every_item_once(several: Path, one: Path, *, same_texts: bool = True) -> None:
    """Check the records of all stages against those of one process: the same items, each as often."""
    assert not [path for path in several.rglob("*-of-*") if path.parent.name == "records"]
    for file in ("1-distill/records/replies.jsonl", "3-reject/records/samples.jsonl"):
        lines = [[json.loads(line) for line in (run / file).read_text().splitlines()] for run in (several, one)]
        if "replies" in file:
            assert Counter(line["id"] for line in lines[0]) == Counter(line["id"] for line in lines[1])
        else:
            assert [[(row["id"], len(row["texts"])) for row in batch] for batch in lines[0]] == [
                [(row["id"], len(row["texts"])) for row in batch] for batch in lines[1]
            ]
            assert lines[0] == lines[1] or not same_texts
    for file in (
        "1-distill/records/cold_start.jsonl",
        "3-reject/records/accepted.jsonl",
        "3-reject/records/hard.jsonl",
    ):
        ids = Counter(example.id for example in read_examples(several / file))
        assert set(ids.values()) == {1}
        assert not same_texts or ids == Counter(example.id for example in read_examples(one / file))
    for path in (*one.glob("4-grpo/records/*.jsonl"), *one.glob("5-evaluate/records/*.jsonl")):
        found, wanted = (
            Counter((item.id, item.order) for item in read_judgements(run / path.relative_to(one)))
            for run in (several, one)
        )
        assert found == wanted
        assert set(found.values()) == {1}
    for path in sorted(one.glob("4-grpo/samples/*.jsonl")):
        of_runs = [
            [json.loads(line) for line in (run / path.relative_to(one)).read_text().split("\n")[:-1]]
            for run in (several, one)
        ]
        assert [len(line["responses"]) for line in of_runs[0]] == [len(line["responses"]) for line in of_runs[1]]
        assert not same_texts or of_runs[0] == of_runs[1]
        items = Counter(line["stream"] for line in of_runs[0])
        assert set(items.values()) == {1}
