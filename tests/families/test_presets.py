"""Presets have the sizes of the published checkpoints, counted without allocating anything."""

import math
from pathlib import Path
from typing import Any

import jax
import pytest

from urt_jax.errors import BadInputError
from urt_jax.families import FAMILIES
from urt_jax.families.presets import PRESETS, preset
from urt_jax.models.config import ModelConfig
from urt_jax.models.vlm import abstract_params

# Total and vision part (projector and line end included) that transformers 5.23 counts; tied heads counted once.
PUBLISHED = {
    "qwen2_5_vl_3b": (3_754_622_976, 668_684_288),
    "qwen2_5_vl_7b": (8_292_166_656, 676_550_144),
    "qwen2_5_vl_32b": (33_452_718_336, 688_841_984),
    "qwen2_5_vl_72b": (73_410_777_344, 704_573_696),
    "qwen3_vl_2b": (2_127_532_032, 406_957_056),
    "qwen3_vl_4b": (4_437_815_808, 415_347_712),
    "qwen3_vl_8b": (8_767_123_696, 576_388_336),
    "qwen3_vl_32b": (33_357_390_064, 595_266_800),
    "llava_onevision_0_5b": (893_675_552, 397_747_744),
    "llava_onevision_7b": (8_029_890_080, 397_747_744),
}


def count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_every_published_size_has_a_preset() -> None:
    assert PRESETS.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_checkpoint(name: str) -> None:
    shapes = abstract_params(preset(name))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shapes))
    total, vision = PUBLISHED[name]
    own = shapes["vision"]
    if name.startswith("llava"):  # the published figure is the tower alone
        own = {part: tree for part, tree in own.items() if part not in ("projector", "newline")}
    assert (count(shapes), count(own)) == (total, vision)


@pytest.mark.parametrize(("name", "config"), PRESETS.items())
def test_presets_survive_config_json(name: str, config: ModelConfig) -> None:
    family = FAMILIES[name.rsplit("_", 2 if name.endswith("0_5b") else 1)[0]]
    assert family.read_config(family.write_config(config, {})) == config


def test_the_published_files_of_qwen_are_the_presets(test_data: Path) -> None:
    import json

    for folder, name in (("qwen2_5_vl_7b", "qwen2_5_vl_7b"), ("qwen3_vl_8b_embedding", "qwen3_vl_8b")):
        stored = json.loads((test_data / "qwen-tokenizer" / folder / "config.json").read_text())
        assert FAMILIES[stored["model_type"]].read_config(stored) == preset(name)


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadInputError, match=r"'qwen3_vl_7b' is unknown; did you mean 'qwen3_vl_"):
        preset("qwen3_vl_7b")
