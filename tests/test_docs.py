"""What the pages show is true: records are read, commands name what is there, links lead somewhere."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from urt_jax.data.sources import read_examples

ROOT = Path(__file__).parents[1]
AT_THE_TOP = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
PAGES = [*AT_THE_TOP, *sorted((ROOT / "docs").glob("*.md"))]
RECORDS = re.findall(r"```json\n(.*?)\n```", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("record", RECORDS, ids=range(len(RECORDS)))
def test_every_record_of_the_page_is_read(record: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "pairs.jsonl").write_text(json.dumps(json.loads(record)) + "\n")
    (example,) = read_examples(tmp_path / "pairs.jsonl", require_label=True)
    assert example.task in ("image_gen", "image_und")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_config_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
    for config in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / config).is_file(), config
    for path in re.findall(r"`((?:tests|urt_jax|launch)/[\w/]+\.\w+)`", text):
        assert (ROOT / path).exists(), path


def test_the_readme_is_two_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
