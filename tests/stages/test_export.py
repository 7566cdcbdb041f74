"""Export as a story: the layout from before transformers in, today's out, cast and in files of a given size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.stages.family_judges import write_family_judge
from tests.stages.story import run_in_process, write_config
from urt_jax.checkpoints.model_folder import load_model


def export(folder: Path, **settings: Any) -> Path:
    return run_in_process(write_config(folder / "export.py", "export", **settings), folder / "out")


def test_a_published_llava_folder_is_written_for_transformers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = write_family_judge("llava_qwen", tmp_path, "Image")
    run = export(tmp_path, model=str(judge), dtype="bfloat16", max_shard_gb=5e-5)
    files = sorted((run / "model").glob("*.safetensors"))
    assert len(files) > 2
    tensors = {name: tensor for path in files for name, tensor in load_file(path).items()}
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"bfloat16"}
    assert "language_model.model.embed_tokens.weight" in tensors
    before, after = load_model(str(judge)), load_model(str(run))
    assert after.processor.config == before.processor.config
    np.testing.assert_array_equal(
        after.params["head"], before.params["head"].astype(tensors["image_newline"].dtype).astype(np.float32)
    )
    result = json.loads((run / "result.json").read_text())
    count = sum(tensor.size for tensor in tensors.values())
    assert result["parameters"] == count
    told = f"llava_onevision: {count:,} parameters in {len(tensors)} tensors (BF16)"
    assert told in result["table"]
    assert told in capsys.readouterr().out


def test_names_and_dtypes_are_kept(tmp_path: Path) -> None:
    """A folder that uses the other names of transformers is written with them."""
    from safetensors.numpy import save_file

    judge = write_family_judge("qwen2_5_vl", tmp_path, "Image")
    path = judge / "model.safetensors"
    renamed = {
        name.replace("visual.", "model.visual.", 1) if name.startswith("visual.") else name: tensor.astype(np.float16)
        for name, tensor in load_file(path).items()
    }
    save_file(renamed, path)
    (path.parent / "checksums.json").unlink(missing_ok=True)  # as others write
    written = load_file(export(tmp_path, model=str(judge)) / "model" / "model.safetensors")
    assert written.keys() == renamed.keys()
    for name, tensor in renamed.items():
        assert written[name].dtype == tensor.dtype
        np.testing.assert_array_equal(written[name], tensor)
