"""The policy that a stage trains: weights on a mesh, module, optimizer, first state, and the written model."""

from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from urt_jax.checkpoints.adapters import save_adapter
from urt_jax.checkpoints.hub import is_hub_name
from urt_jax.checkpoints.model_folder import LoadedModel, adapter_of, load_model, random_model, save_model
from urt_jax.config import LearnerSettings, ModelSettings, PixelsConfig, TrainingConfig
from urt_jax.errors import BadInputError
from urt_jax.models.lora import merge_adapters
from urt_jax.models.tuning import tuning
from urt_jax.models.vlm import VisionLanguageModel
from urt_jax.runs import processes
from urt_jax.runs.meeting import meet_on
from urt_jax.sharding.axes import MeshAxes
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.placement import on_host, place_state
from urt_jax.sharding.shares import share_of
from urt_jax.training.lora import ADAPTER_PATTERNS, add_adapters
from urt_jax.training.optimizer import make_optimizer, make_schedule
from urt_jax.training.settings import OptimizerSettings
from urt_jax.training.state import TrainState, init_state


def open_model(
    model: ModelSettings, pixels: PixelsConfig, *, seed: int, mesh: jax.sharding.Mesh | None = None
) -> LoadedModel:
    """Load a stage's start model, or draw random weights in its layout.

    With a ``mesh`` the weights are read directly to their shards on it, and the first training step donates them: the
    loaded model cannot be used afterwards.
    """
    check_base(model)
    bounds = (pixels.min_pixels, pixels.max_pixels)
    if isinstance(model, LearnerSettings) and model.init == "random":
        drawn = random_model(model.path, seed=seed, pixels=bounds)
        return drawn if mesh is None else replace(drawn, params=place_state(mesh, drawn.params))
    return load_model(model.path, pixels=bounds, mesh=mesh)


def open_mesh(mesh: MeshAxes) -> jax.sharding.Mesh:
    """Make the mesh of a stage.

    Raises:
        BadInputError: the axes do not multiply to the number of devices, or split rows unevenly over processes.
    """
    try:
        made = make_mesh(**asdict(mesh))
        share_of(made)
    except ValueError as error:
        raise BadInputError(f"config.mesh: {error}") from error
    meet_on(made)
    return made


def open_module(config: ModelSettings, loaded: LoadedModel, mesh: jax.sharding.Mesh) -> VisionLanguageModel:
    """Return the module that a stage runs; dtype and attention "auto" are chosen by the devices.

    It prints both choices and those of ``models.tuning``.

    Raises:
        BadInputError: these devices or this dtype cannot run the attention.
    """
    try:
        module = loaded.module_for(mesh, dtype=config.dtype, attention=config.attention, remat=config.remat)
    except BadInputError as error:
        raise BadInputError(f"config.model.{error}") from None
    told = tuning().told(module.config.decoder.layers)
    print(f"tuned for {jax.default_backend()}: {told}\n{module.attention} attention, {np.dtype(module.dtype).name}")
    return module


def open_optimizer(settings: OptimizerSettings, *, updates: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Make a stage's optimizer and its schedule of learning rates over ``updates`` updates."""
    schedule = make_schedule(settings, steps=updates)
    return make_optimizer(settings, schedule), schedule


def check_base(model: ModelSettings) -> None:
    """Check, before weights are read, that new adapters have a base model that can be loaded again.

    Raises:
        BadInputError: ``model.path`` is itself an adapter, whose merged weights are in no folder.
    """
    if model.lora.rank and (folder := adapter_of(model.path)):
        raise BadInputError(
            f"config.model.path {model.path} is an adapter, and lora.rank {model.lora.rank} would train new ones on "
            f"it; give a whole model, such as {folder.parent / 'model'} if that run wrote one, or set lora.rank to 0"
        )


def start_state(
    config: TrainingConfig, loaded: LoadedModel, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Return the state of step 0 on the mesh, with new adapters if ``model.lora.rank`` is not 0.

    Raises:
        BadInputError: a pattern matches nothing.
    """
    model, lora = config.model, config.model.lora
    if not lora.rank:
        return place_state(mesh, init_state(loaded.params, optimizer, model.trainable))
    rng = jax.random.key(config.seed)
    params = add_adapters(loaded.params, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, rng=rng)
    return place_state(mesh, init_state(params, optimizer, ADAPTER_PATTERNS))


def save_policy(config: TrainingConfig, folder: Path, loaded: LoadedModel, state: TrainState) -> LoadedModel:
    """Write ``folder/model`` and return it; adapters are first written to ``folder/adapter``, then merged into it."""
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
    """Return the name and revision by which an adapter's base can be loaded: a hub or shipped model, or a full path."""
    if Path(model.path).exists():
        return str(source.resolve()), None
    name, _, at = model.path.partition("@") if is_hub_name(model.path) else (model.path, "", "")
    return name, at or None
