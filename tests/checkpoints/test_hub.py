"""Models of the hub: what is fetched and what never is, the cache without a connection, and each way it can fail."""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.checkpoints.model_hub import COMMITS, REPO, ModelHub, serving
from urt_jax import RewardModel
from urt_jax.checkpoints import model_folder
from urt_jax.checkpoints.hub import fetch_model, is_hub_name
from urt_jax.checkpoints.model_folder import find_model
from urt_jax.errors import BadInputError

TRAP = "from pathlib import Path\nPath({!r}).write_text('ran')\n\n\nclass Judge:\n    pass\n"


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the library connect (to 127.0.0.1 alone) and close its connections after the test."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def published(tiny_judge: Path, tmp_path: Path) -> Path:
    """Return a model folder as the hub has them: with pickles, code, another format and training leftovers beside."""
    folder = Path(shutil.copytree(tiny_judge, tmp_path / "published"))
    trap = TRAP.format(str(tmp_path / "trapped"))
    (folder / "modeling_judge.py").write_text(trap)
    for name in ("pytorch_model.bin", "training_args.pt", "README.md", "trainer_state.json", "model.onnx"):
        (folder / name).write_bytes(b"not to be read")
    (folder / "original").mkdir()
    for name in ("consolidated.safetensors", "config.json"):
        (folder / "original" / name).write_bytes(b"not to be read")
    code = {"AutoModel": "modeling_judge.Judge", "AutoTokenizer": ["modeling_judge.Judge", "modeling_judge.Judge"]}
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": code}))
    return folder


@pytest.fixture
def hub(published: Path) -> Iterator[ModelHub]:
    with serving(published) as running:
        yield running


@pytest.fixture
def fetch(hub: ModelHub, tmp_path: Path) -> Any:
    """Return ``fetch_model`` from the test's hub into a cache of its own."""
    return partial(fetch_model, endpoint=hub.url, cache_dir=tmp_path / "cache")


def test_only_what_is_read_is_fetched(hub: ModelHub, fetch: Any, tiny_judge: Path, tmp_path: Path) -> None:
    folder = fetch(REPO)
    assert folder.name == COMMITS["main"]
    wanted = {path.name for path in tiny_judge.iterdir()}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*")} == wanted
    assert hub.fetched() == wanted
    for name in ("model.safetensors", "tokenizer.json"):
        assert (folder / name).read_bytes() == (tiny_judge / name).read_bytes()
    assert tmp_path / "cache" in folder.parents


def test_a_hub_name_loads_and_no_code_beside_it_runs(
    fetch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_folder: Path
) -> None:
    monkeypatch.setattr(model_folder, "fetch_model", fetch)
    judge = RewardModel.load(REPO, revision="v1.0", prompt_template="v2")
    assert judge.loaded.folder.name == COMMITS["v1.0"]
    assert judge.prompt_template == "v2"
    assert judge.generate(messages=[{"role": "user", "content": "which?"}], max_new_tokens=2)
    assert RewardModel.load(f"{REPO}@v1.0").loaded.folder == judge.loaded.folder
    assert not (tmp_path / "trapped").exists()


def test_code_in_a_folder_that_was_copied_whole_does_not_run_either(published: Path, tmp_path: Path) -> None:
    RewardModel.load(str(published))
    assert not (tmp_path / "trapped").exists()


def test_the_second_time_nothing_is_fetched_and_the_hub_may_be_down(hub: ModelHub, fetch: Any) -> None:
    first = fetch(REPO)
    hub.asked.clear()
    assert fetch(REPO) == first
    assert hub.fetched() == set()
    hub.shutdown()
    hub.server_close()
    assert fetch(REPO) == first
    hub.asked.clear()
    assert fetch(REPO, revision=COMMITS["main"]) == first


def test_offline_mode_uses_the_cache_and_asks_nothing(
    hub: ModelHub, fetch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch(REPO)
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(REPO) == first
    assert hub.asked == []
    with pytest.raises(BadInputError, match=r"model lab/other: .*cache does not hold all of it while HF_HUB_OFFLINE"):
        fetch("lab/other")
    with pytest.raises(BadInputError, match=r"model lab/judge at revision 'v1\.0': .*HF_HUB_OFFLINE forbids"):
        fetch(REPO, revision="v1.0")


def test_a_local_folder_of_that_name_is_not_looked_for_on_the_hub(
    hub: ModelHub, fetch: Any, tiny_judge: Path, in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_folder, "fetch_model", fetch)
    shutil.copytree(tiny_judge, in_folder / "lab" / "judge")
    assert find_model(REPO) == Path(REPO)
    with pytest.raises(BadInputError, match=r"'lab/judge' came with revision 'v1\.0', but .* a folder of that name is"):
        find_model(REPO, revision="v1.0")
    (in_folder / "lab" / "judge" / "config.json").unlink()
    with pytest.raises(BadInputError, match="nor a hub name"):
        find_model(REPO)
    assert hub.asked == []


def test_a_model_that_is_not_there_or_a_misspelt_folder(fetch: Any) -> None:
    with pytest.raises(
        BadInputError,
        match=r"model runs/grop: no folder of that name here, and the hub has no such model, or it is private: check "
        r"the spelling, log in .*, or download the folder elsewhere and give its path$",
    ):
        fetch("runs/grop")


def test_a_revision_that_is_not_there(fetch: Any) -> None:
    with pytest.raises(
        BadInputError,
        match=r"model lab/judge at revision 'v9': .*no branch, tag or commit 'v9': give one that its page",
    ):
        fetch(REPO, revision="v9")


@pytest.mark.parametrize("refused", ["/api/", f"/{REPO}/resolve/"], ids=["listing", "files"])
def test_a_gated_model_says_how_to_get_in(hub: ModelHub, fetch: Any, refused: str) -> None:
    hub.refused = refused
    with pytest.raises(
        BadInputError, match=r"model lab/judge: .*on the hub it is gated: ask for access on its page and"
    ):
        fetch(REPO)


@pytest.mark.parametrize(
    ("pattern", "missing"),
    [
        ("*.safetensors", r"without \*\.safetensors; only folders"),
        ("tokenizer_config.json", r"without tokenizer_config\.json; only"),
        ("*", r"without config\.json, tokenizer_config\.json, \*\.safetensors; only"),
    ],
)
def test_a_model_in_another_layout_is_refused(hub: ModelHub, fetch: Any, pattern: str, missing: str) -> None:
    for path in hub.folder.glob(pattern):
        if path.is_file() and path.suffix not in (".bin", ".py"):
            path.unlink()
    with pytest.raises(BadInputError, match=rf"model lab/judge: on the hub, but {missing}.*give the folder's path"):
        fetch(REPO)
    assert "pytorch_model.bin" not in hub.fetched()


def test_a_hub_that_cannot_be_reached(hub: ModelHub, fetch: Any) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(
        BadInputError,
        match=r"model lab/judge: .*the hub cannot be reached \(ConnectError: .*\) while the cache does not",
    ):
        fetch(REPO)


def test_a_hub_that_is_ill(hub: ModelHub, fetch: Any) -> None:
    hub.refused, hub.refusal = "/api/", (500, "Internal")
    with pytest.raises(BadInputError, match=r"the hub cannot be reached \(HfHubHTTPError: .*500.*check the connection"):
        fetch(REPO)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library try again at once."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("hasty")
def test_a_connection_that_breaks_once_is_tried_again(hub: ModelHub, fetch: Any, published: Path) -> None:
    hub.cut["model.safetensors"] = 1
    weights = fetch(REPO) / "model.safetensors"
    assert weights.read_bytes() == (published / "model.safetensors").read_bytes()
    assert len([line for line in hub.asked if line.startswith("GET") and line.endswith("/model.safetensors")]) == 2


@pytest.mark.usefixtures("hasty")
def test_a_download_that_breaks_off_is_an_error_and_starts_again_with_what_is_missing(
    hub: ModelHub, fetch: Any, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut["model.safetensors"] = 1000
    with pytest.raises(BadInputError, match=r"model lab/judge: .*the download broke off \(\w+Error: .*: start again, "):
        fetch(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BadInputError, match="the cache does not hold all of it"):
        fetch(REPO)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.cut.clear()
    hub.asked.clear()
    weights = fetch(REPO) / "model.safetensors"
    assert weights.read_bytes() == (published / "model.safetensors").read_bytes()
    assert hub.fetched() == {"model.safetensors"}


def test_progress_is_shown(fetch: Any, tiny_judge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(REPO)
    assert f"Fetching {len(list(tiny_judge.iterdir()))} files: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("lab/judge", True),
        ("CodeGoat24/UnifiedReward-Think-qwen-7b", True),
        ("lab/judge@v1.0", True),
        ("lab/judge@refs/pr/3", True),
        ("urt-tiny", False),
        ("./lab/judge", False),
        ("../judge", False),
        ("/lab/judge", False),
        ("lab/judge/", False),
        ("runs/demo/model", False),
        ("lab/judge@", False),
        ("https://hub/lab", False),
    ],
)
def test_what_is_a_hub_name(name: str, is_one: bool) -> None:
    assert is_hub_name(name) == is_one


def test_names_and_revisions_that_do_not_go_together(fetch: Any) -> None:
    with pytest.raises(BadInputError, match=r"'lab/judge@v1\.0' came with revision 'main'; give one of the two"):
        fetch("lab/judge@v1.0", revision="main")
    assert fetch("lab/judge@v1.0", revision="v1.0").name == COMMITS["v1.0"]
    with pytest.raises(BadInputError, match=r"model 'judge' is not a hub name; give org/name"):
        fetch("judge")
    with pytest.raises(BadInputError, match=r"model 'urt-tiny' came with revision 'main', but it is not a hub name"):
        find_model("urt-tiny", revision="main")


def test_a_token_that_a_library_repeats_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: str, **settings: Any) -> str:
        raise OSError("500 for https://me:pass-word@hub/api with Bearer t0kenOfATest")

    monkeypatch.setenv("HF_TOKEN", "t0kenOfATest")
    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(BadInputError) as caught:
        fetch_model(REPO)
    assert "500 for https://***@hub/api with Bearer ***" in str(caught.value)
    assert caught.value.__cause__ is None
