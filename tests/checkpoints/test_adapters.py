"""Adapters on disk in PEFT's layout: bit-equal there and back, strict, and an adapter's folder stands for a model."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.tiny import CONFIG, random_leaves, tiny_params
from tests.tiny_lora import DECODER, EVERYWHERE, adapted
from urt_jax import RewardModel
from urt_jax.checkpoints.adapter_config import is_selected
from urt_jax.checkpoints.adapters import load_adapter, save_adapter
from urt_jax.checkpoints.model_folder import find_model, load_model, save_model
from urt_jax.errors import BadInputError
from urt_jax.families import FAMILIES, llava_onevision, qwen2_5_vl, qwen3_vl
from urt_jax.families.family import Family
from urt_jax.models.config import DeepStackVisionConfig, ModelConfig, TileVisionConfig
from urt_jax.models.lora import merge_adapters, without_adapters
from urt_jax.models.vlm import abstract_params
from urt_jax.sharding.mesh import make_mesh

FAMILY = qwen2_5_vl.FAMILY
SIZES = {"depth": 2, "width": 16, "heads": 2, "feed_forward": 24, "out_width": 32, "patch_size": 2}
QWEN3 = replace(CONFIG.decoder, qkv_bias=False, qk_norm=True, mrope_interleaved=True)
CONFIGS: dict[str, ModelConfig] = {
    "qwen2_5_vl": CONFIG,
    "qwen3_vl": replace(CONFIG, decoder=QWEN3, vision=DeepStackVisionConfig(**SIZES, deepstack_layers=(0, 1))),
    "llava_onevision": replace(CONFIG, vision=TileVisionConfig(**SIZES, merge_size=1, tile_size=8, feature_layer=2)),
}
QUERY = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight"
WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"


def saved(folder: Path, params: Any = None, **settings: Any) -> Path:
    tree = adapted(tiny_params()) if params is None else params
    save_adapter(folder, tree, FAMILY, CONFIG, base="org/base", **settings)
    (folder / "checksums.json").unlink()  # tests change the files, as if others had written them
    return folder


def load(folder: Path) -> Any:
    return load_adapter(folder, tiny_params(), FAMILY, CONFIG)


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def settings_of(folder: Path, **changes: Any) -> dict[str, Any]:
    settings = json.loads((folder / SETTINGS).read_text()) | changes
    (folder / SETTINGS).write_text(json.dumps(settings))
    return settings


def assert_same(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("targets", [DECODER, EVERYWHERE], ids=["decoder", "everywhere"])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.model_type)
def test_what_is_saved_comes_back_bit_for_bit(family: Family, targets: tuple[str, ...], tmp_path: Path) -> None:
    config = CONFIGS[family.model_type]
    base = random_leaves(abstract_params(config), 1)
    params = adapted(base, rank=3, alpha=10.0, targets=targets)
    save_adapter(tmp_path, params, family, config, base="org/base")
    assert_same(load_adapter(tmp_path, base, family, config), params)
    assert {path.name for path in tmp_path.iterdir()} == {WEIGHTS, SETTINGS, "checksums.json"}


def test_names_axes_and_settings_are_those_of_peft(tmp_path: Path) -> None:
    params = adapted(tiny_params())
    tensors = load_file(saved(tmp_path, params, revision="main") / WEIGHTS)
    assert len(tensors) == 2 * 2 * 7
    assert tensors[QUERY].shape == (3, 32)
    query = params["decoder"]["layers"]["attention"]["q"]
    np.testing.assert_array_equal(tensors[QUERY], query["lora_a"][1].T)
    np.testing.assert_array_equal(tensors[QUERY.replace("_A", "_B")], query["lora_b"][1].T)
    settings = settings_of(tmp_path)
    wanted = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "bias": "none", "lora_dropout": 0.0, "use_dora": False}
    wanted |= {"base_model_name_or_path": "org/base", "revision": "main", "fan_in_fan_out": False}
    assert {name: settings[name] for name in wanted} == wanted
    assert settings["inference_mode"] is True


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.model_type)
def test_the_pattern_selects_the_adapted_modules_and_no_others(family: Family, tmp_path: Path) -> None:
    config = CONFIGS[family.model_type]
    params = random_leaves(abstract_params(config), 1)
    names = {}
    for targets in (DECODER, EVERYWHERE):
        save_adapter(tmp_path, adapted(params, targets=targets), family, config, base="org/base")
        names[targets] = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in
                          load_file(tmp_path / WEIGHTS)}  # fmt: skip
        if targets == DECODER:
            settings = settings_of(tmp_path)
    assert {name for name in names[EVERYWHERE] if is_selected(name, settings)} == names[DECODER]
    assert all(name.startswith("model.language_model.layers.") for name in names[DECODER])
    assert len(names[DECODER]) == 2 * 7
    assert any("vision" in name or "visual" in name for name in names[EVERYWHERE])


def test_what_peft_writes_otherwise_is_read(tmp_path: Path) -> None:
    """Names without transformers' newer rooms, a list of last names, half precision, the rank-stabilised scale."""
    params = adapted(tiny_params())
    saved(tmp_path, params)
    last_names = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    settings_of(tmp_path, use_rslora=True, target_modules=last_names)

    def change(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            tensors[name.replace("language_model.", "")] = tensors.pop(name).astype(ml_dtypes.bfloat16)

    rewrite(tmp_path, change)
    # The list selects the MLP of the vision tower too.
    message = r"missing base_model\.model\.model\.visual\.blocks\.0\.mlp\.down_proj\.lora_A\.weight"
    with pytest.raises(BadInputError, match=message):
        load(tmp_path)
    settings_of(tmp_path, target_modules=r"model\.layers\.\d+\..*_proj")
    up, before = load(tmp_path)["decoder"]["layers"]["mlp"]["up"], params["decoder"]["layers"]["mlp"]["up"]
    np.testing.assert_array_equal(up["lora_a"], before["lora_a"].astype(ml_dtypes.bfloat16).astype(np.float32))
    assert up["lora_b"].dtype == np.float32
    np.testing.assert_allclose(up["lora_scale"], 6.0 / np.sqrt(3.0), rtol=1e-6)


def test_layers_without_an_adapter_get_one_that_adds_nothing(tmp_path: Path) -> None:
    saved(tmp_path)
    settings_of(tmp_path, target_modules=r"model\.language_model\.layers\.1\..*_proj")
    with pytest.raises(BadInputError, match=r"unexpected .*layers\.0\..*lora_"):
        load(tmp_path)
    rewrite(tmp_path, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.0." in name])
    up = load(tmp_path)["decoder"]["layers"]["mlp"]["up"]
    np.testing.assert_array_equal(up["lora_a"][0], 0.0)
    assert np.abs(up["lora_a"][1]).max() > 0
    merged = merge_adapters(load(tmp_path))["decoder"]["layers"]["mlp"]["up"]["kernel"]
    np.testing.assert_array_equal(merged[0], up["kernel"][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(QUERY), rf"missing {re.escape(QUERY)}"),
        (lambda t: t.update({QUERY.replace("layers.1", "layers.7"): t[QUERY]}), r"unexpected .*layers\.7\.self_attn"),
        (lambda t: t.update({"lm_head.lora_A.weight": t[QUERY]}), r"unexpected lm_head\.lora_A\.weight"),
        (lambda t: t.update({QUERY: t[QUERY][:2].copy()}), r"q_proj\.lora_A is \(2, 32\), rank 3 and the base need"),
        (lambda t: t.clear(), r"missing base_model.* and 23 more"),
    ],
    ids=["missing", "another layer", "another module", "misshapen", "empty"],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change: Any, message: str) -> None:
    rewrite(saved(tmp_path), change)
    with pytest.raises(BadInputError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save = \['lm_head'\]"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern = {'q_proj': 8}"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"an_option_of_next_year": 1}, "an_option_of_next_year = 1"),
    ],
    ids=str,
)
def test_options_that_are_not_done_are_refused(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    settings_of(saved(tmp_path), **options)
    with pytest.raises(BadInputError, match=rf"adapter_config\.json: {told}; only plain LoRA .*merge_and_unload"):
        load(tmp_path)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (saved(tmp_path) / WEIGHTS).write_bytes(b"torn")
    with pytest.raises(BadInputError, match=r"adapter_model\.safetensors: not a readable safetensors file"):
        load(tmp_path)
    (tmp_path / SETTINGS).write_text("[")
    with pytest.raises(BadInputError, match=r"adapter_config\.json: not JSON"):
        load(tmp_path)


def test_only_adapters_of_one_rank_on_projections_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"adapters of \(rank, scales\) \[\]"):
        saved(tmp_path, tiny_params())
    both = adapted(tiny_params(), rank=2, targets=[r"mlp/up/"])
    both["decoder"]["layers"]["attention"] = adapted(tiny_params())["decoder"]["layers"]["attention"]
    with pytest.raises(ValueError, match=r"\[\(2, 3\.0\), \(3, 2\.0\)\].*one rank and one scale"):
        saved(tmp_path, both)


@pytest.fixture
def adapter(tiny_judge: Path, tmp_path: Path) -> Path:
    """An adapter of the shared judge, alone in its folder."""
    judge = load_model(str(tiny_judge))
    family, config = judge.processor.family, judge.processor.config
    save_adapter(tmp_path / "adapter", adapted(judge.params), family, config, base=str(tiny_judge))
    return tmp_path / "adapter"


def test_an_adapter_s_folder_is_loaded_as_its_base_with_it_merged(adapter: Path, tiny_judge: Path) -> None:
    judge = load_model(str(tiny_judge))
    assert find_model(str(adapter)) == tiny_judge
    loaded = load_model(str(adapter))
    assert loaded.folder == tiny_judge
    assert_same(loaded.params, merge_adapters(adapted(judge.params)))
    spread = load_model(str(adapter), mesh=make_mesh(1, 4, 2))
    assert jax.tree.structure(spread.params) == jax.tree.structure(judge.params)
    for one, other in zip(jax.tree.leaves(spread.params), jax.tree.leaves(loaded.params)):
        np.testing.assert_allclose(one, other, atol=1e-6)
    kernel = spread.params["decoder"]["layers"]["mlp"]["up"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 32 // 4, 48 // 2)}
    messages = [{"role": "user", "content": "which is better"}]
    plain, changed = (RewardModel.load(str(folder)).logits(messages=messages) for folder in (tiny_judge, adapter))
    assert np.abs(plain - changed).max() > 0.01


def test_an_adapter_whose_base_is_gone_or_unnamed_is_refused(adapter: Path, tmp_path: Path) -> None:
    settings_of(adapter, base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(BadInputError, match=r"is an adapter of '.*gone', which was not found \(model .*write the path"):
        load_model(str(adapter))
    settings_of(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(BadInputError, match="is an adapter of another adapter"):
        load_model(str(adapter))
    settings_of(adapter, base_model_name_or_path=None)
    with pytest.raises(BadInputError, match="names no base_model_name_or_path"):
        load_model(str(adapter))


def test_a_whole_model_with_adapter_settings_beside_it_is_a_whole_model(tiny_judge: Path, tmp_path: Path) -> None:
    """And its copy brings no adapter settings, which would make transformers look for the adapter's tensors."""
    folder = Path(shutil.copytree(tiny_judge, tmp_path / "judge"))
    (folder / SETTINGS).write_text("{}")
    loaded = load_model(str(folder))
    assert_same(loaded.params, without_adapters(load_model(str(tiny_judge)).params))
    save_model(tmp_path / "copy", loaded.params, loaded.processor, loaded.folder)
    assert not (tmp_path / "copy" / SETTINGS).exists()


def test_every_published_family_is_among_the_tested() -> None:
    assert set(CONFIGS) == set(FAMILIES)
    assert {family.model_type for family in (FAMILY, qwen3_vl.FAMILY, llava_onevision.FAMILY)} == set(FAMILIES)
