"""Model folders as they are found: two heads, two sets of weights, buffers, quantised, other layouts, damage."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.checkpoints.test_adapters import FAMILY as ADAPTED_FAMILY
from tests.tiny import CONFIG, tiny_params
from tests.tiny_lora import adapted
from urt_jax.checkpoints.adapters import load_adapter, save_adapter
from urt_jax.checkpoints.hf_weights import save_weights
from urt_jax.checkpoints.model_folder import load_model, load_processor, save_model
from urt_jax.errors import BadInputError
from urt_jax.families import llava_onevision, qwen2_5_vl, qwen3_vl
from urt_jax.families.llava_original import complete_config
from urt_jax.files.checksums import SUMS_NAME
from urt_jax.files.whole import whole_folder

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture
def folder(tiny_judge: Path, tmp_path: Path) -> Path:
    """A copy of the shared judge, whose head is tied, that the test may break."""
    return Path(shutil.copytree(tiny_judge, tmp_path / "judge"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, **changes: Any) -> dict[str, np.ndarray]:
    tensors = load_file(folder / SINGLE)
    tensors = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
    save_file(tensors, folder / SINGLE)
    return tensors


def embedding_of(folder: Path) -> tuple[str, np.ndarray]:
    return next((name, tensor) for name, tensor in load_file(folder / SINGLE).items() if "embed_tokens" in name)


def test_a_stored_head_that_differs_is_used_though_the_config_ties_it(folder: Path) -> None:
    _, embedding = embedding_of(folder)
    own = np.random.default_rng(0).standard_normal(embedding.shape).astype(embedding.dtype)
    rewrite(folder, **{"lm_head.weight": own})
    loaded = load_model(str(folder))
    assert not loaded.processor.config.decoder.tied_head
    np.testing.assert_array_equal(loaded.params["head"], own)
    save_model(folder.parent / "again", loaded.params, loaded.processor, folder)
    again = load_model(str(folder.parent / "again"))
    np.testing.assert_array_equal(again.params["head"], own)
    assert json.loads((folder.parent / "again" / "config.json").read_text())["tie_word_embeddings"] is False


def test_a_stored_head_that_is_the_embedding_stays_tied(folder: Path) -> None:
    name, embedding = embedding_of(folder)
    rewrite(folder, **{"lm_head.weight": embedding.copy()})
    assert load_model(str(folder)).processor.config.decoder.tied_head
    rewrite(folder, **{name: None})  # stored as the head alone
    loaded = load_model(str(folder))
    assert loaded.processor.config.decoder.tied_head
    np.testing.assert_array_equal(loaded.params["embedding"], embedding)


def test_a_stored_head_of_another_shape_or_in_one_row_only_is_not_passed_over(folder: Path) -> None:
    _, embedding = embedding_of(folder)
    rewrite(folder, **{"lm_head.weight": embedding[:-1].copy()})
    with pytest.raises(BadInputError, match=r"lm_head.weight in model.safetensors is"):
        load_model(str(folder))
    changed = embedding.copy()
    changed[-1, -1] += 1
    rewrite(folder, **{"lm_head.weight": changed})
    assert not load_model(str(folder)).processor.config.decoder.tied_head


@pytest.mark.parametrize(
    ("family", "root", "text", "tied"),
    [
        (family, root, text, bool(root or (text and family is not qwen3_vl)))
        for family in (qwen2_5_vl, qwen3_vl, llava_onevision)
        for root in (True, False, None)
        for text in (True, False, None)
    ],
)
def test_what_config_json_says_of_tying_is_read_as_its_class_does(
    family: Any, root: Any, text: Any, tied: bool
) -> None:
    from tests.checkpoints.test_adapters import CONFIGS

    stored = family.FAMILY.write_config(CONFIGS[family.FAMILY.model_type], {})
    for part, value in ((stored, root), (stored["text_config"], text)):
        part.pop("tie_word_embeddings", None)
        if value is not None:
            part["tie_word_embeddings"] = value
    assert family.read_config(stored).decoder.tied_head is tied
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CONFIG_MAPPING[family.FAMILY.model_type](**stored)
    assert theirs.tie_word_embeddings is tied


def sharded(folder: Path) -> None:
    """Add shards and their index to a folder that has its weights in one file."""
    tensors = load_file(folder / SINGLE)
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file_name, own in parts.items():
        save_file({name: tensors[name] for name in own}, folder / file_name)
    weight_map = {name: file_name for file_name, own in parts.items() for name in own}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_two_sets_of_weights_are_refused_and_one_is_read(folder: Path) -> None:
    expected = load_model(str(folder)).params
    sharded(folder)
    with pytest.raises(BadInputError, match=r"two sets of weights, model.safetensors and the shards of"):
        load_model(str(folder))
    kept = (folder / SINGLE).read_bytes()
    (folder / SINGLE).unlink()
    jax.tree.map(np.testing.assert_array_equal, load_model(str(folder)).params, expected)
    (folder / SINGLE).write_bytes(kept)
    (folder / "model-00001-of-00002.safetensors").unlink()  # the index is left over
    jax.tree.map(np.testing.assert_array_equal, load_model(str(folder)).params, expected)


@pytest.mark.parametrize("name", ["../judge/model.safetensors", "/etc/passwd", "a/b.safetensors", "model.bin", 7, None])
def test_an_index_names_shards_beside_it_only(folder: Path, name: Any) -> None:
    sharded(folder)
    (folder / SINGLE).unlink()
    stored = json.loads((folder / INDEX).read_text())
    stored["weight_map"][next(iter(stored["weight_map"]))] = name
    (folder / INDEX).write_text(json.dumps(stored))
    with pytest.raises(BadInputError, match=r"index\.json"):
        load_model(str(folder))


@pytest.mark.parametrize(
    "name",
    [
        "visual.rotary_pos_emb.inv_freq",
        "model.visual.rotary_pos_emb.inv_freq",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.language_model.rotary_emb.original_inv_freq",
        "vision_tower.embeddings.position_ids",
    ],
)
def test_known_buffers_are_passed_over(folder: Path, name: str) -> None:
    expected = load_model(str(folder)).params
    rewrite(folder, **{name: np.ones(4, np.float32)})
    jax.tree.map(np.testing.assert_array_equal, load_model(str(folder)).params, expected)
    rewrite(folder, **{"visual.something.else": np.ones(4, np.float32)})
    with pytest.raises(BadInputError, match=r"unexpected visual\.something\.else"):
        load_model(str(folder))


@pytest.mark.parametrize("method", ["fp8", "awq", "gptq", "bitsandbytes", "compressed-tensors"])
@pytest.mark.parametrize("where", ["root", "text_config"])
def test_a_quantised_folder_is_told_by_its_method(folder: Path, method: str, where: str) -> None:
    settings = {"quant_method": method, "bits": 4}
    stored = json.loads((folder / "config.json").read_text())
    (stored if where == "root" else stored["text_config"])["quantization_config"] = settings
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(BadInputError, match=rf"quantised \('{method}'\).*dequantise"):
        load_model(str(folder))


@pytest.mark.parametrize(
    "suffix", ["weight_scale", "weight_scale_inv", "qweight", "qzeros", "g_idx", "weight.absmax", "SCB"]
)
def test_quantised_tensors_are_told_without_a_config(folder: Path, suffix: str) -> None:
    rewrite(folder, **{f"model.layers.0.mlp.up_proj.{suffix}": np.ones(4, np.float32)})
    with pytest.raises(BadInputError, match="quantised"):
        load_model(str(folder))


@pytest.mark.parametrize(("name", "kind"), [("a.gguf", "GGUF"), ("pytorch_model.bin", "pickles"), ("m.onnx", "ONNX")])
def test_weights_of_another_format_are_named(folder: Path, name: str, kind: str) -> None:
    (folder / SINGLE).rename(folder / name)
    with pytest.raises(BadInputError, match=rf"neither model.safetensors.*its weights are {kind}"):
        load_model(str(folder))


ORIGINAL = {
    "model_type": "llava_qwen", "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 40,
    "intermediate_size": 24, "mm_projector_type": "mlp2x_gelu", "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "one_token", "mm_spatial_pool_mode": "bilinear", "mm_spatial_pool_stride": None,
    "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "mm_vision_tower": "siglip-so400m-patch14-384",
    "mm_resampler_type": None, "mm_use_im_start_end": False, "add_faster_video": False, "use_pos_skipping": False,
    "image_aspect_ratio": "anyres_max_9", "image_grid_pinpoints": "(1x1),...,(6x6)", "image_crop_resolution": None,
}  # fmt: skip
SHAPES = {f"vision_tower.encoder.layers.{n}.mlp.fc1.bias": (4304,) for n in range(26)}


def test_the_published_settings_of_the_older_layout_pass() -> None:
    assert complete_config(ORIGINAL, SHAPES, (38, 39))["vision_feature_layer"] == 26


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mm_newline_position", "grid"),
        ("mm_newline_position", "frame"),
        ("mm_newline_position", "no_token"),
        ("mm_spatial_pool_mode", "average"),
        ("mm_spatial_pool_stride", 4),
        ("mm_vision_select_feature", "cls_patch"),
        ("mm_resampler_type", "spatial_pool"),
        ("mm_projector_type", "linear"),
        ("mm_patch_merge_type", "flat"),
        ("mm_use_im_start_end", True),
        ("add_faster_video", True),
        ("add_time_instruction", True),
        ("use_pos_skipping", True),
        ("image_crop_resolution", 224),
        ("mm_vision_select_layer", 3),
        ("mm_vision_select_layer", "last"),
        ("image_grid_pinpoints", 7),
    ],
)
def test_other_layouts_of_the_older_kind_are_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(BadInputError, match=key):
        complete_config(ORIGINAL | {key: value}, SHAPES, (38, 39))


@pytest.mark.parametrize("family", [qwen2_5_vl, qwen3_vl, llava_onevision])
@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("text_config", "num_hidden_layers", 10**9),
        ("text_config", "num_hidden_layers", 0),
        ("text_config", "vocab_size", 10**9),
        ("text_config", "num_attention_heads", 0),
        ("text_config", "num_key_value_heads", 3),
        ("text_config", "hidden_size", "32"),
        ("text_config", "hidden_act", "gelu"),
        ("text_config", "rope_parameters", {"rope_type": "yarn"}),
        ("text_config", "rope_parameters", 7),
        ("text_config", "rms_norm_eps", float("nan")),
        ("text_config", "use_sliding_window", True),
        ("vision_config", "hidden_act", "relu"),
        ("vision_config", "hidden_size", -1),
        ("vision_config", "patch_size", 0),
        (None, "text_config", None),
        (None, "vision_config", [1]),
        (None, "tie_word_embeddings", "yes"),
    ],
)
def test_config_json_is_taken_within_bounds(family: Any, part: str | None, key: str, value: Any) -> None:
    from tests.checkpoints.test_adapters import CONFIGS

    stored = family.FAMILY.write_config(CONFIGS[family.FAMILY.model_type], {})
    (stored[part] if part else stored)[key] = value
    if (part, key, family) == (None, "text_config", qwen2_5_vl):
        stored.pop("text_config")  # the flat form, of which nothing is there then
    with pytest.raises(BadInputError, match=r"config\.json"):
        family.read_config(stored)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("preprocessor_config.json", {"image_mean": ["N"]}),
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5]}),
        ("preprocessor_config.json", {"image_std": [0.5, 0.5, 0]}),
        ("preprocessor_config.json", {"min_pixels": -1}),
        ("preprocessor_config.json", {"max_pixels": 10**20}),
        ("preprocessor_config.json", {"size": 7}),
        ("preprocessor_config.json", {"patch_size": None, "merge_size": "2"}),
        ("video_preprocessor_config.json", {"size": {"longest_edge": True}}),
    ],
)
def test_picture_settings_are_taken_within_bounds(folder: Path, name: str, changes: dict[str, Any]) -> None:
    edit(folder / name, **changes)
    with pytest.raises(BadInputError, match=name):
        load_processor(str(folder))


def written(tmp_path: Path, tiny_judge: Path) -> Path:
    loaded = load_model(str(tiny_judge))
    save_model(tmp_path / "model", loaded.params, loaded.processor, loaded.folder)
    return tmp_path / "model"


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_damaged_bit_anywhere_is_found_and_the_file_is_named(tiny_judge: Path, tmp_path: Path) -> None:
    model = written(tmp_path, tiny_judge)
    load_model(str(model))
    files = sorted(path for path in model.iterdir() if path.is_file())
    rng = random.Random(0)
    for n in range(200):
        path = files[n % len(files)]
        bit = rng.randrange(path.stat().st_size * 8)
        flip(path, bit)
        with pytest.raises(BadInputError) as caught:
            load_model(str(model))
        assert path.name in str(caught.value) or path.name == SUMS_NAME, (path.name, bit, caught.value)
        flip(path, bit)
    load_model(str(model))


def test_a_damaged_bit_of_an_adapter_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    save_adapter(folder, adapted(tiny_params()), ADAPTED_FAMILY, CONFIG, base="org/base")
    files = sorted(folder.iterdir())
    rng = random.Random(1)
    for n in range(60):
        path = files[n % len(files)]
        bit = rng.randrange(path.stat().st_size * 8)
        flip(path, bit)
        with pytest.raises(BadInputError):
            load_adapter(folder, tiny_params(), ADAPTED_FAMILY, CONFIG)
        flip(path, bit)
    load_adapter(folder, tiny_params(), ADAPTED_FAMILY, CONFIG)


def test_cut_missing_and_exchanged_files_are_found(tiny_judge: Path, tmp_path: Path) -> None:
    model = written(tmp_path, tiny_judge)
    kept = {path.name: path.read_bytes() for path in model.iterdir()}
    (model / SINGLE).write_bytes(kept[SINGLE][:-1])
    with pytest.raises(BadInputError, match=r"model.safetensors: it is not as it was written"):
        load_model(str(model))
    (model / SINGLE).write_bytes(kept[SINGLE])
    (model / "preprocessor_config.json").write_bytes(kept["video_preprocessor_config.json"])
    with pytest.raises(BadInputError, match=r"preprocessor_config.json: it is not as it was written"):
        load_model(str(model))
    (model / "preprocessor_config.json").unlink()
    with pytest.raises(BadInputError, match=r"preprocessor_config.json: it is listed .* but missing"):
        load_model(str(model))
    (model / SUMS_NAME).unlink()  # what the message says to do: then it is a folder as others write
    load_model(str(model))


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with whole_folder(folder, last="config.json", replaced=("*.bin",)) as made:
        (made / "config.json").write_text("1")
        (made / "w.bin").write_text("old")
    (folder / "user.txt").write_text("kept")
    before = {path.name: path.read_text() for path in folder.iterdir()}

    def fill_the_disk() -> None:
        with whole_folder(folder, last="config.json", replaced=("*.bin",)) as made:
            (made / "config.json").write_text("2")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fill_the_disk()
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    with whole_folder(folder, last="config.json", replaced=("*.bin",)) as made:
        (made / "config.json").write_text("2")
        (made / "x.bin").write_text("new")
    assert sorted(path.name for path in folder.iterdir()) == [SUMS_NAME, "config.json", "user.txt", "x.bin"]


def test_saving_over_its_own_source_works(tiny_judge: Path, tmp_path: Path) -> None:
    model = written(tmp_path, tiny_judge)
    loaded = load_model(str(model))
    save_model(model, loaded.params, loaded.processor, model)
    jax.tree.map(np.testing.assert_array_equal, load_model(str(model)).params, loaded.params)


def test_leaves_that_no_rule_names_are_not_dropped(tmp_path: Path) -> None:
    params = {**tiny_params(), "extra": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match=r"1 leaves of the tree .*extra"):
        save_weights(tmp_path, params, qwen2_5_vl.FAMILY, CONFIG)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"target_modules": "*q_proj"}, "target_modules"),
        ({"target_modules": "(a+)+$"}, "repeats inside repeats"),
        ({"target_modules": "(.*)*(.*)*x"}, "repeats inside repeats"),
        ({"target_modules": ".*.*.*.*.*x"}, "repeats inside repeats"),
        ({"target_modules": "a" * 200_000}, "of at most 100,000 characters"),
        ({"target_modules": 7}, "target_modules"),
        ({"target_modules": [7]}, "target_modules"),
        ({"target_modules": None}, "target_modules"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": 0}, "lora_alpha"),
        ({"lora_alpha": -1}, "lora_alpha"),
        ({"lora_alpha": "16"}, "lora_alpha"),
        ({"r": "x"}, "r is 'x'"),
        ({"r": 0}, "r is 0"),
        ({"r": 10**9}, "r is 1000000000"),
    ],
)
def test_settings_of_an_adapter_are_taken_within_bounds(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    save_adapter(tmp_path, adapted(tiny_params()), ADAPTED_FAMILY, CONFIG, base="org/base")
    (tmp_path / SUMS_NAME).unlink()
    edit(tmp_path / "adapter_config.json", **changes)
    with pytest.raises(BadInputError, match=told):
        load_adapter(tmp_path, tiny_params(), ADAPTED_FAMILY, CONFIG)


@pytest.mark.parametrize("kind", ["nan", "int32", "int8"])
def test_tensors_of_an_adapter_are_finite_floats(tmp_path: Path, kind: str) -> None:
    save_adapter(tmp_path, adapted(tiny_params()), ADAPTED_FAMILY, CONFIG, base="org/base")
    (tmp_path / SUMS_NAME).unlink()
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = next(iter(tensors))
    if kind == "nan":
        tensors[name][0] = np.nan
    else:
        tensors[name] = tensors[name].astype(kind)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BadInputError, match=rf"{name}.*finite float16"):
        load_adapter(tmp_path, tiny_params(), ADAPTED_FAMILY, CONFIG)


def test_mixed_half_precisions_of_an_adapter_are_read(tmp_path: Path) -> None:
    save_adapter(tmp_path, adapted(tiny_params()), ADAPTED_FAMILY, CONFIG, base="org/base")
    (tmp_path / SUMS_NAME).unlink()
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    kinds = (np.float16, ml_dtypes.bfloat16)
    halves = {name: tensor.astype(kinds[n % 2]) for n, (name, tensor) in enumerate(sorted(tensors.items()))}
    save_file(halves, tmp_path / "adapter_model.safetensors")
    leaves = jax.tree.leaves(load_adapter(tmp_path, tiny_params(), ADAPTED_FAMILY, CONFIG))
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
