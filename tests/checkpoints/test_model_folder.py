"""A model folder: found by name, read in both generations of files, written whole."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from urt_jax.checkpoints import model_folder
from urt_jax.checkpoints.model_folder import (
    find_model,
    load_model,
    load_processor,
    random_model,
    read_geometry,
    save_model,
    write_settings,
)
from urt_jax.errors import BadInputError
from urt_jax.families.qwen2_5_vl import DEFAULT_GEOMETRY, FAMILY
from urt_jax.models.vlm import abstract_params


@pytest.fixture
def folder(tiny_judge: Path, tmp_path: Path) -> Path:
    """A copy of the shared judge that the test may break."""
    return Path(shutil.copytree(tiny_judge, tmp_path / "judge"))


def edit(path: Path, **changes: Any) -> None:
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, **changes}))


def leaves(tree: Any) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def test_a_saved_model_loads_bit_for_bit(tiny_judge: Path, tmp_path: Path) -> None:
    first = load_model(str(tiny_judge))
    save_model(tmp_path / "again", first.params, first.processor, first.folder)
    second = load_model(str(tmp_path / "again"))
    assert second.processor.config == first.processor.config
    assert second.processor.geometry == first.processor.geometry
    assert second.processor.tokenizer.get_vocab() == first.processor.tokenizer.get_vocab()
    assert second.processor.tokenizer.chat_template == first.processor.tokenizer.chat_template
    one, other = leaves(first.params), leaves(second.params)
    assert one.keys() == other.keys()
    for name, leaf in one.items():
        np.testing.assert_array_equal(leaf, other[name])


def test_saving_names_ids_and_dtype_for_other_readers(tiny_judge: Path, tmp_path: Path) -> None:
    model = load_model(str(tiny_judge))
    save_model(tmp_path, model.params, model.processor, model.folder, dtype=jax.numpy.bfloat16)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["model_type"] == "qwen2_5_vl"
    assert stored["dtype"] == "bfloat16"
    assert stored["text_config"]["pad_token_id"] == model.processor.pad_id
    assert stored["text_config"]["eos_token_id"] == model.processor.end_ids[0]
    half = load_model(str(tmp_path), dtype=None)
    assert {leaf.dtype for leaf in jax.tree.leaves(half.params)} == {np.dtype(jax.numpy.bfloat16)}


def test_random_weights_differ_by_seed_and_have_the_declared_shapes(tiny_judge: Path) -> None:
    one, other = random_model(str(tiny_judge), seed=1), random_model(str(tiny_judge), seed=2)
    shapes = leaves(jax.tree.map(lambda leaf: np.array(leaf.shape), abstract_params(one.processor.config)))
    assert {name: leaf.shape for name, leaf in leaves(one.params).items()} == {
        name: tuple(shape) for name, shape in shapes.items()
    }
    assert not np.array_equal(one.params["embedding"], other.params["embedding"])


def test_models_are_found_by_name_run_folder_or_folder(
    tiny_judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_model(str(tiny_judge)) == tiny_judge
    shutil.copytree(tiny_judge, tmp_path / "run" / "model")
    assert find_model(str(tmp_path / "run")) == tmp_path / "run" / "model"
    monkeypatch.setattr(model_folder, "ASSETS", tiny_judge.parent)
    assert find_model(tiny_judge.name) == tiny_judge


def test_an_unknown_model_lists_the_shipped_ones_and_the_nearest(
    tiny_judge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "ASSETS", tiny_judge.parent)
    with pytest.raises(BadInputError, match=r"model 'tiny-juge': neither a shipped model \(.*tiny-judge.*\) nor a "):
        find_model("tiny-juge")
    with pytest.raises(BadInputError, match="did you mean 'tiny-judge'"):
        find_model("tiny-juge")


def test_a_folder_without_a_tokenizer_is_no_model(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(BadInputError, match=r"nor a folder with config\.json and tokenizer_config\.json"):
        load_model(str(folder))


def test_a_torn_config_is_named(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen')
    with pytest.raises(BadInputError, match=r"config\.json: not JSON: .*copy the file again"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("qwen2_5_v1", r"model_type 'qwen2_5_v1' is unknown; did you mean 'qwen2_5_vl'\? known: qwen2_5_vl, "),
        ("bert", r"model_type 'bert' is unknown; known: qwen2_5_vl, qwen3_vl, llava_onevision, llava_qwen$"),
        (None, r"model_type None is unknown"),
    ],
)
def test_an_unknown_family_is_refused_with_the_nearest(folder: Path, model_type: str | None, message: str) -> None:
    edit(folder / "config.json", model_type=model_type)
    with pytest.raises(BadInputError, match=message):
        load_model(str(folder))


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    stored["text_config"]["intermediate_size"] += 4
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(BadInputError, match=r"weights and config\.json do not belong together: model.layers.0.mlp"):
        load_model(str(folder))


def test_a_tokenizer_longer_than_the_embedding_is_refused(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    size = stored["text_config"]["vocab_size"]
    stored["text_config"]["vocab_size"] = size - 1
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(BadInputError, match=f"the tokenizer has {size} ids, the embedding only {size - 1} rows"):
        load_model(str(folder))


def test_pixel_bounds_can_be_replaced(tiny_judge: Path) -> None:
    own = load_processor(str(tiny_judge))[0].geometry
    changed = load_processor(str(tiny_judge), pixels=(None, own.min_pixels))[0].geometry
    assert (changed.min_pixels, changed.max_pixels) == (own.min_pixels, own.min_pixels)
    with pytest.raises(BadInputError, match=f"min_pixels {own.max_pixels + 1} is above max_pixels {own.max_pixels}"):
        load_processor(str(tiny_judge), pixels=(own.max_pixels + 1, None))


OLDER = {
    "preprocessor_config.json": {
        "min_pixels": 3136, "max_pixels": 50176, "patch_size": 14, "merge_size": 2,
        "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
    },
    "video_preprocessor_config.json": {"size": {"shortest_edge": 6272, "longest_edge": 12544}},
}  # fmt: skip
NEWER = {
    "processor_config.json": {
        "image_processor": {
            "size": {"shortest_edge": 3136, "longest_edge": 50176}, "patch_size": 14,
            "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
        },
        "video_processor": {"size": {"shortest_edge": 6272, "longest_edge": 12544}},
    },
}  # fmt: skip


@pytest.mark.parametrize("files", [OLDER, NEWER], ids=["older files", "one newer file"])
def test_picture_settings_are_read_from_both_generations(tmp_path: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = read_geometry(tmp_path, FAMILY, {})
    assert (found.min_pixels, found.max_pixels) == (3136, 50176)
    assert (found.video_min_pixels, found.video_max_pixels) == (6272, 12544)
    assert found.mean == (0.1, 0.2, 0.3)
    assert found.std == (0.4, 0.5, 0.6)


def test_without_files_the_family_decides(tmp_path: Path) -> None:
    assert read_geometry(tmp_path, FAMILY, {}) == DEFAULT_GEOMETRY


def test_picture_settings_come_back_as_written(tmp_path: Path) -> None:
    geometry = DEFAULT_GEOMETRY
    write_settings(tmp_path, FAMILY.picture_files(geometry))
    assert read_geometry(tmp_path, FAMILY, {}) == geometry
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert stored["size"] == {"shortest_edge": geometry.min_pixels, "longest_edge": geometry.max_pixels}


def test_only_a_models_own_files_are_copied(tiny_judge: Path, tmp_path: Path, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"x")
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"x")
    model = load_model(str(tiny_judge))
    save_model(tmp_path / "out", model.params, model.processor, folder)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not {"pytorch_model.bin", "model-00001-of-00002.safetensors"} & names


def test_a_model_can_be_saved_over_itself(folder: Path) -> None:
    model = load_model(str(folder))
    shifted = jax.tree.map(lambda leaf: leaf + 1, model.params)
    save_model(folder, shifted, model.processor, folder)
    again = load_model(str(folder))
    np.testing.assert_array_equal(again.params["embedding"], shifted["embedding"])


def test_torn_picture_settings_are_named(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"min_pixels": ')
    with pytest.raises(BadInputError, match=r"preprocessor_config.json: not JSON: .*copy the file again"):
        read_geometry(tmp_path, FAMILY, {})
