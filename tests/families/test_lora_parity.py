"""Adapters of every family equal PEFT's on torch, written here and read there and the other way round.

PEFT itself is asked where ``URT_PEFT`` names a folder made by ``pip install --no-deps --target FOLDER peft accelerate
psutil``; it stays out of the environment of the tests.
"""

import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

pytest.importorskip("torch", reason="parity with transformers needs torch 2.13.0 (CPU build)")

from safetensors.numpy import load_file

from tests.families.reference import Reference, load_ours, random_chat
from tests.families.test_parity import NO_ANSWER, REFERENCES, full_inputs, shapes
from tests.tiny_lora import DECODER, EVERYWHERE, adapted
from urt_jax.checkpoints.adapters import load_adapter, save_adapter
from urt_jax.data.collate import collate

pytestmark = pytest.mark.parity
CASES = [
    pytest.param(reference, targets, id=f"{reference.family.model_type}-{name}")
    for reference in REFERENCES
    for name, targets in (("decoder", DECODER), ("everywhere", EVERYWHERE))
]
# What PEFT is told to adapt, the last names of modules: those of the decoder, and some of the vision towers with them.
LAST_NAMES = ["q_proj", "o_proj", "up_proj", "down_proj", "qkv", "linear_fc1", "fc2", "linear_1"]


class Compared:
    """One small model here and on torch, and a batch of chats with pictures and clips for both."""

    def __init__(self, reference: Reference, folder: Path) -> None:
        trait = reference.traits[0]
        self.reference, self.folder = reference, folder
        self.torch_model = reference.hf_model(trait)
        self.config, self.model, self.params = load_ours(reference, self.torch_model, folder / "base")
        media = reference.rows(np.random.default_rng(1), trait, self.config)
        rng = np.random.default_rng(2)
        self.chats = [random_chat(rng, self.config, row) for row in media]
        self.inputs = full_inputs(reference, self.chats, media)

    def ours(self, params: Any) -> np.ndarray:
        batch = collate(self.chats, [NO_ANSWER] * len(self.chats), **shapes(self.config, self.chats))
        return self.real(np.asarray(jax.jit(self.model.apply)({"params": params}, batch)))

    def theirs(self, model: Any) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self.real(model(**self.inputs).logits.numpy())

    def real(self, logits: np.ndarray) -> np.ndarray:
        return np.concatenate([logits[row, : len(chat.tokens_T)] for row, chat in enumerate(self.chats)])

    def save(self, params: Any) -> Path:
        folder = self.folder / "adapter"
        save_adapter(folder, params, self.reference.family, self.config, base=str(self.folder / "base"))
        return folder


def assert_close(found: np.ndarray, wanted: np.ndarray, plain: np.ndarray) -> None:
    own = np.abs(wanted - plain).max()
    print(f"largest difference {np.abs(found - wanted).max():.2e}, the adapter's own {own:.2e}")
    assert own > 0.05, "the adapter must be seen"
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("reference", "targets"), CASES)
def test_our_adapter_added_to_torch_s_modules_by_name(
    reference: Reference, targets: tuple[str, ...], tmp_path: Path
) -> None:
    import torch

    compared = Compared(reference, tmp_path)
    params = adapted(compared.params, targets=targets)
    folder = compared.save(params)
    plain = compared.theirs(compared.torch_model)
    settings = json.loads((folder / "adapter_config.json").read_text())
    tensors = {name: torch.tensor(tensor) for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    linear = {n: m for n, m in compared.torch_model.named_modules() if isinstance(m, torch.nn.Linear)}
    chosen = {name for name in linear if re.fullmatch(settings["target_modules"], name)}
    assert {f"base_model.model.{n}.lora_{side}.weight" for n in chosen for side in "AB"} == set(tensors)
    if targets == EVERYWHERE:
        assert chosen == linear.keys() - {"lm_head"}
    with torch.no_grad():
        for name in chosen:
            a, b = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
            linear[name].weight += settings["lora_alpha"] / settings["r"] * b @ a
    found = compared.ours(params)
    assert_close(found, compared.theirs(compared.torch_model), plain)
    if targets == EVERYWHERE:
        blind = compared.ours({**params, "vision": compared.params["vision"]})
        assert np.abs(found - blind).max() > 0.01, "the tower's adapters must be seen too"


@pytest.fixture(scope="module")
def peft() -> Any:
    folder = os.environ.get("URT_PEFT", "")
    if not folder:
        pytest.skip("URT_PEFT is not set: give a folder with peft, accelerate and psutil (see the module's docstring)")
    sys.path.append(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft
    return peft


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("reference", "targets"), CASES)
def test_peft_reads_our_adapter(reference: Reference, targets: tuple[str, ...], tmp_path: Path, peft: Any) -> None:
    compared = Compared(reference, tmp_path)
    params = adapted(compared.params, targets=targets)
    folder = compared.save(params)
    plain = compared.theirs(compared.torch_model)
    with warnings.catch_warnings():  # a tensor that is missing is a warning there
        warnings.filterwarnings("error", message=".*missing adapter keys")
        model = peft.PeftModel.from_pretrained(compared.torch_model, folder).eval()
    assert_close(compared.ours(params), compared.theirs(model), plain)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.family.model_type)
@pytest.mark.parametrize("stabilised", [False, True], ids=["plain", "rslora"])
def test_we_read_peft_s_adapter(reference: Reference, tmp_path: Path, peft: Any, *, stabilised: bool) -> None:
    import torch

    compared = Compared(reference, tmp_path)
    plain = compared.theirs(compared.torch_model)
    there = {name.rsplit(".", 1)[-1] for name, _ in compared.torch_model.named_modules()}
    settings = peft.LoraConfig(
        r=5, lora_alpha=7, target_modules=[n for n in LAST_NAMES if n in there], use_rslora=stabilised
    )
    torch.manual_seed(3)
    model = peft.get_peft_model(compared.torch_model, settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "peft")
    params = load_adapter(tmp_path / "peft", compared.params, reference.family, compared.config)
    assert_close(compared.ours(params), compared.theirs(model), plain)
