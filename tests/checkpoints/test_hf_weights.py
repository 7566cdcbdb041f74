"""Weights in the published layout: bit-equal there and back, strict both ways, and every error names what is wrong."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.tiny import CONFIG, tiny_params
from urt_jax.checkpoints import hf_weights
from urt_jax.checkpoints.hf_weights import load_weights, save_weights
from urt_jax.checkpoints.stored_tensors import INDEX_NAME, SINGLE_NAME
from urt_jax.errors import BadInputError
from urt_jax.families.qwen2_5_vl import FAMILY
from urt_jax.models.config import ModelConfig
from urt_jax.models.vlm import abstract_params
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.rules import shardings_for

TIED = replace(CONFIG, decoder=replace(CONFIG.decoder, tied_head=True))


def save(folder: Path, **settings: Any) -> Path:
    save_weights(folder, tiny_params(), FAMILY, CONFIG, **settings)
    return folder


def load(folder: Path, config: ModelConfig = CONFIG, **settings: Any) -> dict[str, Any]:
    return load_weights(folder, FAMILY, config, **settings)


def assert_same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Change the tensors of a one-file checkpoint."""
    tensors = load_file(folder / SINGLE_NAME)
    change(tensors)
    save_file(tensors, folder / SINGLE_NAME)


def without_head() -> dict[str, Any]:
    return {name: leaf for name, leaf in tiny_params().items() if name != "head"}


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    assert_same(load(save(tmp_path)), tiny_params())
    assert [path.name for path in tmp_path.iterdir()] == [SINGLE_NAME]


def test_shards_come_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path, max_shard_bytes=12_000)
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    index = json.loads((tmp_path / INDEX_NAME).read_text())
    assert set(index["weight_map"].values()) == set(shards)
    assert index["metadata"]["total_size"] == sum(leaf.nbytes for leaf in jax.tree.leaves(tiny_params()))
    assert_same(load(tmp_path), tiny_params())


def test_weights_that_were_there_before_are_replaced(tmp_path: Path) -> None:
    """Cut in other files, the old ones or their index would be read in place of the new ones."""
    other = jax.tree.map(lambda leaf: leaf + 1, tiny_params())
    save_weights(tmp_path, other, FAMILY, CONFIG, max_shard_bytes=12_000)
    assert_same(load(save(tmp_path)), tiny_params())
    assert [path.name for path in tmp_path.iterdir()] == [SINGLE_NAME]
    save_weights(tmp_path, other, FAMILY, CONFIG, max_shard_bytes=12_000)
    assert_same(load(tmp_path), other)
    assert not (tmp_path / SINGLE_NAME).exists()


def test_bfloat16_is_kept_or_cast(tmp_path: Path) -> None:
    save(tmp_path, dtype=ml_dtypes.bfloat16)
    half = jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), tiny_params())
    assert_same(load(tmp_path), half)
    assert_same(load(tmp_path, dtype=np.float32), jax.tree.map(lambda leaf: leaf.astype(np.float32), half))


def test_tensors_have_the_published_names_and_axes(tmp_path: Path) -> None:
    tensors = load_file(save(tmp_path) / SINGLE_NAME)
    params = tiny_params()
    np.testing.assert_array_equal(
        tensors["model.layers.1.mlp.gate_proj.weight"], params["decoder"]["layers"]["mlp"]["gate"]["kernel"][1].T
    )
    np.testing.assert_array_equal(
        tensors["model.layers.0.self_attn.q_proj.bias"], params["decoder"]["layers"]["attention"]["q"]["bias"][0]
    )
    assert tensors["visual.patch_embed.proj.weight"].shape == (16, 3, 1, 2, 2)
    np.testing.assert_array_equal(
        tensors["visual.patch_embed.proj.weight"].reshape(16, -1), params["vision"]["patch_embed"]["kernel"].T
    )
    assert tensors["lm_head.weight"].shape == tensors["model.embed_tokens.weight"].shape == (40, 32)


def test_the_other_name_layout_loads_the_same(tmp_path: Path) -> None:
    """Some writers put the decoder below model.language_model and the tower below model.visual."""
    tensors = load_file(save(tmp_path) / SINGLE_NAME)
    renamed = {
        re.sub(r"^visual\.", "model.visual.", re.sub(r"^model\.", "model.language_model.", name)): tensor
        for name, tensor in tensors.items()
    }
    assert "model.language_model.layers.0.input_layernorm.weight" in renamed
    assert "model.visual.merger.ln_q.weight" in renamed
    save_file(renamed, tmp_path / SINGLE_NAME)
    assert_same(load(tmp_path), tiny_params())


def test_a_tied_head_is_not_written_and_a_stored_copy_is_passed_over(tmp_path: Path) -> None:
    save_weights(tmp_path, without_head(), FAMILY, TIED)
    assert "lm_head.weight" not in load_file(tmp_path / SINGLE_NAME)
    assert_same(load(tmp_path, TIED), without_head())
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}))
    assert_same(load(tmp_path, TIED), without_head())


def test_missing_and_unexpected_tensors_are_named_together(tmp_path: Path) -> None:
    def change(tensors: dict[str, np.ndarray]) -> None:
        del tensors["model.norm.weight"]
        tensors["model.layers.2.mlp.up_proj.weight"] = np.zeros(1, np.float32)

    save(tmp_path)
    rewrite(tmp_path, change)
    with pytest.raises(
        BadInputError,
        match=r"missing model\.norm\.weight; unexpected model\.layers\.2\.mlp\.up_proj\.weight; copy the folder again",
    ):
        load(tmp_path)


def test_many_missing_tensors_are_counted(tmp_path: Path) -> None:
    save(tmp_path)
    deeper = replace(CONFIG, decoder=replace(CONFIG.decoder, layers=3))
    with pytest.raises(BadInputError, match=r"missing model\.layers\.2\.input_layernorm\.weight, .* and 7 more; copy"):
        load(tmp_path, deeper)


def test_an_untied_config_needs_its_head(tmp_path: Path) -> None:
    save_weights(tmp_path, without_head(), FAMILY, TIED)
    with pytest.raises(BadInputError, match=r"missing lm_head\.weight"):
        load(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = save(tmp_path) / SINGLE_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadInputError, match=rf"{SINGLE_NAME}: not a readable safetensors file .*copy it again"):
        load(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save(tmp_path, max_shard_bytes=12_000)
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(BadInputError, match=f"names shards that are not there: {gone.name}; copy them"):
        load(tmp_path)


@pytest.mark.parametrize("torn", ['{"weight_map": {', '{"metadata": {}}', "[]"])
def test_a_torn_index_is_named(tmp_path: Path, torn: str) -> None:
    (tmp_path / INDEX_NAME).write_text(torn)
    with pytest.raises(
        BadInputError, match=rf"{INDEX_NAME}: (not JSON|weight_map is missing|\[\] where a JSON object)"
    ):
        load_weights(tmp_path, FAMILY, CONFIG)


def test_an_index_that_names_a_tensor_its_shard_lacks_is_refused(tmp_path: Path) -> None:
    save(tmp_path, max_shard_bytes=12_000)
    second = sorted(tmp_path.glob("*.safetensors"))[1]
    tensors = load_file(second)
    lost = next(iter(tensors))
    del tensors[lost]
    save_file(tensors, second)
    with pytest.raises(
        BadInputError, match=rf"{second.name}: .*{lost}.*the index and the shard do not belong together"
    ):
        load(tmp_path)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BadInputError, match=f"neither {SINGLE_NAME} nor {INDEX_NAME} is there.*; only safetensors"):
        load(tmp_path)


def test_misshapen_tensors_are_named_with_file_and_both_shapes(tmp_path: Path) -> None:
    save(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"model.embed_tokens.weight": np.zeros((41, 32), np.float32)}))
    with pytest.raises(
        BadInputError,
        match=rf"{tmp_path}: weights and config.json do not belong together: model.embed_tokens.weight in "
        rf"{SINGLE_NAME} is \(41, 32\), config.json asks for \(40, 32\)$",
    ):
        load(tmp_path)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    save(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"model.norm.weight": np.zeros(32, np.int32)}))
    with pytest.raises(BadInputError, match=r"model.norm.weight in .* is of dtype I32, not a plain float"):
        load(tmp_path)


def test_one_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"model.visual.merger.ln_q.weight": np.ones(16, np.float32)}))
    with pytest.raises(BadInputError, match=r"visual.merger.ln_q.weight and .* are the same tensor; keep one of them"):
        load(tmp_path)


@pytest.mark.parametrize("read_bytes", [64, 1 << 26])
def test_weights_go_straight_to_their_place_on_a_mesh(
    tmp_path: Path, read_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf_weights, "READ_BYTES", read_bytes)
    mesh = make_mesh(data=2, fsdp=2, tensor=2)
    shardings = shardings_for(abstract_params(CONFIG), mesh)
    placed = load(save(tmp_path, max_shard_bytes=12_000), shardings=shardings)
    assert_same(jax.tree.map(np.asarray, placed), tiny_params())
    for leaf, sharding in zip(jax.tree.leaves(placed), jax.tree.leaves(shardings)):
        assert leaf.sharding == sharding
    gate = placed["decoder"]["layers"]["mlp"]["gate"]["kernel"]
    assert gate.addressable_shards[0].data.shape == (2, 16, 12)
