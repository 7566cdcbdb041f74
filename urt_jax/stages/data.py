"""Look at a source of records before training on it: a table of what it holds, and a page with some of them.

1. read the records, and count those that are left out;
2. decode the first ``look`` of them: sizes, media that repeat, prompt lengths in a model's tokens;
3. print the table; write ``report.html`` with records drawn at random.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from urt_jax.checkpoints.model_folder import load_processor
from urt_jax.config import DataConfig
from urt_jax.data.examples import Example
from urt_jax.data.leaks import decoded, media_hash
from urt_jax.data.prompts import all_media, render
from urt_jax.errors import BadInputError
from urt_jax.evals.source_figures import Looked, source_rows, write_page
from urt_jax.evals.tables import format_table
from urt_jax.families.processor import Processor, encode_chat
from urt_jax.feeds.records import every_record, skipped_figures, tell_skipped
from urt_jax.progress import each
from urt_jax.runs.run_folder import write_result


def run(config: DataConfig) -> None:
    """Print the table, and write it with ``report.html``."""
    folder = Path(config.workdir)
    records, skipped = every_record(config.data)
    if not records:
        raise BadInputError(f"{config.data.path} holds no record that can be used: {skipped.told() or 'it is empty'}")
    told = tell_skipped([skipped])
    processor, _ = load_processor(config.model)
    first = records[: config.look]
    looked = {
        example.id: look_at(example, processor, template=config.data.template)
        for example in each(first, title="looking", unit="record", total=len(first))
    }
    rows = source_rows(records, looked)
    report = folder / "report.html"
    note = f"{len(records)} records of {config.data.path}; prompts in tokens of {config.model}"
    write_page(report, title="urt_jax: a source of records", note=note, rows=rows, shown=_drawn(records, config))
    table = f"{note}\n\n{format_table(rows)}" + (f"\n\n{told}" if told else "") + f"\n\nreport: {report}"
    print(table)
    write_result(folder, table, rows=rows, skipped=skipped_figures([skipped]))


def look_at(example: Example, processor: Processor, *, template: str) -> Looked:
    """Decode a record's media, and encode its prompt.

    Raises:
        BadInputError: a medium cannot be read, or the prompt cannot be written.
    """
    name = f"record {example.id}"
    shown = (decoded(item, name=name) for item in all_media(example))
    media = [(media_hash(pixels), *pixels.shape[-3:-1]) for pixels in shown]
    chat = render(example, template=template)
    return Looked(tuple(media), len(encode_chat(processor, chat, name=name, max_tokens=None).tokens_T))


def _drawn(records: Sequence[Example], config: DataConfig) -> list[Example]:
    rng = np.random.default_rng([config.seed, 6])
    places = rng.permutation(len(records))[: config.report_samples]
    return [records[place] for place in sorted(places.tolist())]
