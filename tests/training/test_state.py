"""The train state: what is trained, what is frozen, and where moments are kept."""

import jax
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from tests.tiny import tiny_params
from tests.training.tiny_training import TRAINED, assert_same
from urt_jax.config import ModelSettings
from urt_jax.families.presets import preset
from urt_jax.models.vlm import abstract_params
from urt_jax.training.state import init_state, merge_params, split_params

TREE = {"decoder": {"q": {"kernel": np.ones((2, 2))}}, "vision": {"kernel": np.zeros(3)}, "head": np.ones(1)}


def test_a_leaf_is_trained_where_any_pattern_matches_its_path() -> None:
    trainable, frozen = split_params(TREE, [r"^decoder/", r"^head$"])
    assert set(trainable) == {"decoder", "head"}
    assert set(frozen) == {"vision"}
    assert_same(merge_params(trainable, frozen), TREE)


def test_everything_or_single_leaves_can_be_trained() -> None:
    assert split_params(TREE, [""])[1] == {}
    trainable, frozen = split_params(TREE, [r"vision/kernel"])
    assert set(trainable) == {"vision"}
    assert set(frozen) == {"decoder", "head"}


def test_a_misspelt_pattern_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"trainable patterns \['\^decodr/'\] match no parameter.*start with decoder, head, vision"
    ):
        split_params(TREE, [r"^decodr/", r"^head$"])


def test_frozen_parameters_have_no_moments() -> None:
    state = init_state(tiny_params(), optax.adamw(1e-3), TRAINED)
    assert int(state.step) == 0
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state)]
    assert any("decoder" in path for path in paths)
    assert not any("vision" in path for path in paths)
    trained = sum(leaf.size for leaf in jax.tree.leaves(state.trainable))
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(state.opt_state)) == 2 * trained + 1
    assert_same(state.params, tiny_params())


TOWER, PROJECTOR = r"^vision/(?!projector|deep_projector|newline)", r"^vision/(projector|deep_projector|newline)"
LANGUAGE_MODEL = ModelSettings.trainable[0]


@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen3_vl_8b", "llava_onevision_7b"])
def test_three_patterns_part_every_family_into_tower_projector_and_language_model(name: str) -> None:
    """The patterns that the README gives for freezing parts."""
    params = abstract_params(preset(name))
    parts = [set(flatten_dict(split_params(params, [pattern])[0])) for pattern in (TOWER, PROJECTOR, LANGUAGE_MODEL)]
    assert set().union(*parts) == set(flatten_dict(params))
    assert sum(map(len, parts)) == len(flatten_dict(params))
    tower, projector, language = ({path[1] if path[0] == "vision" else path[0] for path in part} for part in parts)
    assert {"blocks", "patch_embed"} <= tower
    assert "projector" in projector
    assert {"decoder", "embedding"} <= language
