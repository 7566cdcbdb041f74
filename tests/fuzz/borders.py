"""For each border of the project: how spoiled inputs are made, and the code that takes them in."""

import json
import shutil
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.data.video_samples import grey_frames, write_video
from tests.fuzz.inputs import SEEDS
from tests.fuzz.values import damaged, junk, spoiled_json

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
FOLDER_FILES = ("config.json", "preprocessor_config.json", "video_preprocessor_config.json", "generation_config.json")


def picture(form: str, size: tuple[int, int] = (9, 7)) -> bytes:
    """Return the bytes of a small picture or animation."""
    stream = BytesIO()
    rng = np.random.default_rng(0)
    one, other = (Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for _ in range(2))
    moving = {"save_all": True, "append_images": [other], "duration": 40} if form in ("GIF", "WEBP") else {}
    one.save(stream, form, **moving)
    return stream.getvalue()


@cache
def clips() -> dict[str, bytes]:
    """Return small video files by their endings."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = (write_video(Path(folder) / f"c.{form}", grey_frames(6)) for form in ("mp4", "avi", "mkv", "webm", "ts"))
        return {path.suffix[1:]: path.read_bytes() for path in made}


def write_media(folder: Path) -> None:
    """Write what the rows name."""
    for name, form in (("a.png", "PNG"), ("b.png", "PNG"), ("c.gif", "GIF")):
        (folder / name).write_bytes(picture(form))


def read_rows(folder: Path, case: bytes, *, ending: str) -> object:
    """Read a file of records, ask about each, and find again what is written of them."""
    from urt_jax.data.curriculum import start_pool
    from urt_jax.data.prompts import render
    from urt_jax.data.sources import read_examples, read_pool, write_examples
    from urt_jax.errors import BadInputError

    path = folder / f"rows.{ending}"
    path.write_bytes(case)
    pool = read_pool(path)
    start_pool(pool.examples)
    for example in pool.examples:
        try:
            render(example.swapped() if example.swappable else example)
        except BadInputError:
            continue
        (folder / "again").mkdir(exist_ok=True)
        write_examples(folder / "again" / "rows.jsonl", [example])
        again = read_examples(folder / "again" / "rows.jsonl")
        assert [(e.task, e.label, len(e.candidates)) for e in again] == [
            (example.task, example.label, len(example.candidates))
        ]
    return pool


def take_picture(folder: Path, case: bytes) -> object:
    """Decode a picture and ask for its head as a record does."""
    from urt_jax.data.images import load_image

    return load_image(case, name="picture")


def take_clip(folder: Path, case: tuple[str, bytes]) -> object:
    """Decode a few frames of a clip."""
    from urt_jax.data.examples import FramePicking, Media
    from urt_jax.data.video import load_clip

    path = folder / f"clip.{case[0]}"
    path.write_bytes(case[1])
    return load_clip(Media("video", str(path)), name="clip", picking=FramePicking(max_frames=4, fps=2))


def take_arguments(folder: Path, case: dict[str, Any]) -> object:
    """Make the record of a comparison from arguments and decode its media."""
    from urt_jax.data.comparisons import make_pair
    from urt_jax.data.examples import Media
    from urt_jax.data.images import load_image
    from urt_jax.data.prompts import render
    from urt_jax.data.video import load_clip

    example = make_pair(**case)
    render(example)
    for item in (*example.context, *example.candidates):
        if isinstance(item, Media):
            (load_image if item.kind == "image" else load_clip)(item, name="medium")
    return example


@st.composite
def api_arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Return arguments of a comparison, any of them unfit."""
    array = np.zeros((4, 5, 3), np.uint8)
    odd = st.sampled_from(
        (array, array[None], array.astype(np.float32), array[..., :2], array[:0], None, b"", picture("PNG"), [array])
    )
    things = st.one_of(odd, junk())
    names = ("caption", "question", "images", "videos", "answers", "context")
    given = dict.fromkeys(names)
    sound = (
        {"caption": "a cat", "images": [array, array]},
        {"caption": "a cat", "videos": [array[None], array[None]]},
        {"question": "What?", "answers": ["a", "b"], "context": array},
    )
    given |= draw(st.sampled_from(sound))
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=2)):
        given[name] = draw(st.one_of(things, st.lists(things, min_size=1, max_size=3)))
    return given


@cache
def judge() -> Path:
    """Return a small model folder."""
    import tempfile

    from tests.tiny import write_judge

    return write_judge(Path(tempfile.mkdtemp()) / "judge")


def fresh_judge(folder: Path) -> None:
    """Copy the small model folder."""
    shutil.copytree(judge(), folder / "judge", ignore=shutil.ignore_patterns("checksums.json"))


@cache
def judge_file(name: str) -> Any:
    """Return a settings file of the small model folder."""
    return json.loads((judge() / name).read_text())


@st.composite
def folder_cases(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[str, bytes]:
    """Return a file of a model folder, by name, spoiled."""
    name = draw(st.sampled_from(names))
    path = judge() / name
    if not name.endswith(".json") or draw(st.integers(0, 5)) == 0:
        return name, damaged(path.read_bytes() if path.is_file() else b"{}", draw(SEEDS))
    return name, draw(spoiled_json((judge_file(name) if path.is_file() else {"chat_template": "x"},)))


def take_folder(folder: Path, case: tuple[str, bytes], *, weights: bool) -> object:
    """Load a model folder one of whose files is spoiled, and put it right again."""
    from urt_jax.checkpoints.model_folder import load_model, load_processor
    from urt_jax.data.examples import Chat
    from urt_jax.data.tokenizer import chat_text

    name, content = case
    path = folder / "judge" / name
    before = path.read_bytes() if path.is_file() else None
    path.write_bytes(content)
    try:
        if weights:
            return load_model(str(folder / "judge"))
        processor, _ = load_processor(str(folder / "judge"))
        return chat_text(processor.tokenizer, Chat([{"role": "user", "content": [{"type": "text", "text": "a"}]}]))
    finally:
        path.unlink() if before is None else path.write_bytes(before)


def write_adapter(folder: Path) -> None:
    """Write a small adapter."""
    from tests.tiny import CONFIG, tiny_params
    from tests.tiny_lora import adapted
    from urt_jax.checkpoints.adapters import save_adapter
    from urt_jax.families.qwen2_5_vl import FAMILY

    save_adapter(folder / "adapter", adapted(tiny_params()), FAMILY, CONFIG, base="org/base")
    (folder / "adapter" / "checksums.json").unlink(missing_ok=True)


@cache
def adapter_files() -> dict[str, bytes]:
    """Return the files of a small adapter."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_adapter(Path(folder))
        return {name: (Path(folder) / "adapter" / name).read_bytes() for name in ADAPTER_FILES}


@st.composite
def adapter_cases(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a file of an adapter, by name, spoiled."""
    settings, tensors = ADAPTER_FILES
    if draw(st.booleans()):
        return settings, draw(spoiled_json((json.loads(adapter_files()[settings]),)))
    return tensors, damaged(adapter_files()[tensors], draw(SEEDS))


def take_adapter(folder: Path, case: tuple[str, bytes]) -> object:
    """Load an adapter one of whose files is spoiled."""
    from tests.tiny import CONFIG, tiny_params
    from urt_jax.checkpoints.adapters import load_adapter
    from urt_jax.families.qwen2_5_vl import FAMILY

    path = folder / "adapter" / case[0]
    before = path.read_bytes()
    path.write_bytes(case[1])
    try:
        return load_adapter(folder / "adapter", tiny_params(), FAMILY, CONFIG)
    finally:
        path.write_bytes(before)


def take_command_line(folder: Path, case: list[str]) -> object:
    """Read the arguments of a run and open its folder."""
    from urt_jax.main import read_arguments

    return read_arguments(case)


def take_run_file(folder: Path, case: tuple[str, bytes]) -> object:
    """Go on with a run one of whose files is spoiled."""
    from urt_jax.evals.pairwise import read_judgements
    from urt_jax.runs.run_folder import open_run, read_result
    from urt_jax.runs.shared_lines import SharedLines
    from urt_jax.sharding.shares import Share
    from urt_jax.training.metrics import MetricsWriter, read_metrics

    name, content = case
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    (run / "config.json").write_text('{"seed": 1}')
    (run / name).write_bytes(content)
    if name == "config.json":
        return open_run(run, {"seed": 1, "data": [{"path": "x"}]})
    if name == "result.json":
        return read_result(run)
    if name == "judgements.jsonl":
        return read_judgements(run / name)
    if name == "samples.jsonl":
        with SharedLines(run / name, Share()) as lines:
            return lines.lines
    read_metrics(run)
    MetricsWriter(run, resume_step=1).close()
    return None


@cache
def judgement_fields() -> Any:
    """Return a line of an evaluation's file of judgements."""
    import tempfile

    from tests.evals.judged import image_pair, written
    from urt_jax.evals.pairwise import judge_texts, write_judgements

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "judgements.jsonl"
        write_judgements(path, [judge_texts(image_pair("a"), [written((9, 9, 5), (6, 7, 8), 1)])])
        return json.loads(path.read_text())


@st.composite
def run_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a file of a run folder, by name, spoiled."""
    metrics = {"step": 1, "loss": 0.5, "reward": None}
    documents: dict[str, Any] = {
        "config.json": {"seed": 1, "data": [{"path": "x"}], "mesh": {"data": 1}},
        "result.json": {"table": "| a |", "summaries": {"m": {"greedy": {"accuracy": [0.5, 0.4, 0.6, 10]}}}},
        "judgements.jsonl": judgement_fields(),
        "samples.jsonl": [{"text": "x", "reward": 1.0}, {"text": "y", "reward": 0.0}],
        "metrics.jsonl": metrics,
    }
    name = draw(st.sampled_from(tuple(documents)))
    content = draw(spoiled_json((documents[name],)))
    return name, content if name.endswith(".json") else content + b"\n" + draw(st.sampled_from((b"", b"{}\n", b"[]\n")))


def take_text(folder: Path, case: str) -> object:
    """Read what a judge wrote, and pay it."""
    from urt_jax.rewards.verifiable import accuracy_reward, consistency_reward, format_reward
    from urt_jax.tasks.replies import parse

    found = parse(case), parse(case, think=False), format_reward(case), consistency_reward(case)
    return (*found, accuracy_reward(case, "Image 1 is better"))


def take_wording(folder: Path, case: str) -> object:
    """Ask in the words of a user's template."""
    from urt_jax.data.examples import Example
    from urt_jax.data.prompts import render

    path = folder / "wording.txt"
    path.write_bytes(case.encode("utf-8", "surrogatepass"))
    return render(Example("a", task="image_gen", prompt="a cat", candidates=("x", "y")), template=path)


def take_chat_template(folder: Path, case: str) -> object:
    """Write a chat by a model folder's template."""
    return take_folder(folder, ("chat_template.jinja", case.encode("utf-8", "surrogatepass")), weights=False)


@cache
def endpoint() -> tuple[str, list[bytes]]:
    """Start an endpoint that answers every request with the last bytes of a list; return its address and the list."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    answers = [b""]

    class Session(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answers[-1])

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Session)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/v1", answers


def take_reply(folder: Path, case: bytes) -> object:
    """Ask a teacher who answers so, and read again what was written down."""
    from urt_jax.data.examples import Chat, Query
    from urt_jax.teacher import client
    from urt_jax.teacher.client import ask_teacher
    from urt_jax.teacher.replies import read_replies
    from urt_jax.teacher.settings import TeacherSettings

    url, answers = endpoint()
    answers.append(case)
    path = folder / "replies.jsonl"
    path.unlink(missing_ok=True)
    settings = TeacherSettings(url, "m", api_key_env=None, retries=1, timeout_s=5)
    client.FIRST_PAUSE_S = client.LONGEST_PAUSE_S = 0.001
    ask_teacher([Query("a", Chat([{"role": "user", "content": "Which?"}]))], settings, replies_path=path)
    replies = read_replies(path)
    assert list(replies) == ["a"]
    return replies


def take_replies_file(folder: Path, case: bytes) -> object:
    """Go on with replies of an earlier run."""
    from urt_jax.teacher.replies import read_replies

    path = folder / "replies.jsonl"
    path.write_bytes(case + b"\n")
    return read_replies(path)


def take_report(folder: Path, case: Any) -> object:
    """Draw a report of what a run may hold."""
    from tests.evals.judged import image_pair
    from urt_jax.evals.pairwise import judge_texts
    from urt_jax.evals.report import Sample, write_report
    from urt_jax.evals.statistics import summarize

    text = json.dumps(case)
    pair = image_pair(text[:50])
    judged = judge_texts(pair, [text])
    summaries = {text[:30]: {"greedy": summarize([judged], seed=0)}}
    settings, samples = {"given": case}, [Sample(pair, {text[:30]: judged})]
    write_report(folder / "report.html", title=text, summaries=summaries, settings=settings, samples=samples, note=text)
    return (folder / "report.html").read_text()
