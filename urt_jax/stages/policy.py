"""The policy that a stage trains: the state it starts with and the files it leaves, whole or by adapters alone."""

from pathlib import Path

import jax
import optax
from jax.sharding import Mesh

from urt_jax.checkpoints.adapters import save_adapter
from urt_jax.checkpoints.hub import is_hub_name
from urt_jax.checkpoints.model_folder import LoadedModel, adapter_of, save_model
from urt_jax.config import ModelSettings, TrainingConfig
from urt_jax.errors import BadInputError
from urt_jax.models.lora import merge_adapters
from urt_jax.runs import processes
from urt_jax.sharding.placement import on_host, place_state
from urt_jax.training.lora import ADAPTER_PATTERNS, add_adapters
from urt_jax.training.state import TrainState, init_state


def check_base(model: ModelSettings) -> None:
    """Check, before anything is read, that adapters would have a base that can be found again.

    Raises:
        BadInputError: adapters are to be trained on an adapter: the weights they would adapt lie in no folder.
    """
    if model.lora.rank and (folder := adapter_of(model.path)):
        raise BadInputError(
            f"config.model.path {model.path} is an adapter alone, and lora.rank {model.lora.rank} would train new ones "
            f"on it; give a whole model, such as {folder.parent / 'model'} if that run left one, or set lora.rank to 0"
        )


def start_state(
    config: TrainingConfig, loaded: LoadedModel, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Return the state of step 0 on the mesh, with fresh adapters where ``model.lora.rank`` asks for them.

    Raises:
        BadInputError: patterns that match nothing.
    """
    model, lora = config.model, config.model.lora
    if not lora.rank:
        return place_state(mesh, init_state(loaded.params, optimizer, model.trainable))
    rng = jax.random.key(config.seed)
    params = add_adapters(loaded.params, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, rng=rng)
    return place_state(mesh, init_state(params, optimizer, ADAPTER_PATTERNS))


def save_policy(config: TrainingConfig, folder: Path, loaded: LoadedModel, state: TrainState) -> LoadedModel:
    """Write ``folder/model`` and return it; adapters go to ``folder/adapter`` first and are merged into the model."""
    params = on_host(state.params)
    if config.model.lora.rank:
        name, revision = _found_again(config.model, loaded.folder)
        family, sizes = loaded.processor.family, loaded.processor.config
        adapted = params
        processes.of_first(
            lambda: save_adapter(folder / "adapter", adapted, family, sizes, base=name, revision=revision)
        )
        params = merge_adapters(params)
    processes.of_first(lambda: save_model(folder / "model", params, loaded.processor, loaded.folder))
    return LoadedModel(loaded.processor, params, folder / "model")


def _found_again(model: ModelSettings, source: Path) -> tuple[str, str | None]:
    """Return name and revision of the hub's model or a shipped one, or the path of a folder, from anywhere."""
    if Path(model.path).exists():
        return str(source.resolve()), None
    name, _, at = model.path.partition("@") if is_hub_name(model.path) else (model.path, "", "")
    return name, at or None
