"""Rendered questions: wording, media order, the record's own prompt, and what is refused."""

import json
import re
from pathlib import Path

import pytest

from urt_jax.checkpoints.model_folder import ASSETS
from urt_jax.data import prompts
from urt_jax.data.examples import Example, Media
from urt_jax.errors import BadInputError
from urt_jax.rewards.verifiable import score_agreement
from urt_jax.tasks import PAPER_TASKS, TASKS, wording
from urt_jax.tasks.replies import parse

COMPARISONS = [name for name, task in TASKS.items() if task.compares]
PICTURES = (Media("image", "1.png"), Media("image", "2.png"))
CLIPS = (Media("video", ["a.png", "b.png"]), Media("video", ["c.png", "d.png"]))
PAIR = Example("p", task="image_gen", prompt="a red circle", candidates=PICTURES)
ANSWERS = Example("q", task="video_und", prompt="which way?", context=CLIPS[:1], candidates=("it moves left", "right"))


def parts(example: Example, **options: object) -> list[str]:
    """Return the user message as a list of texts and <kind> marks."""
    content = prompts.render(example, **options).messages[-1]["content"]  # type: ignore[arg-type]
    return [part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in content]


def record_of(task: str) -> Example:
    """Return a record that every template of the task can be filled for."""
    return Example("x", task=task, prompt="w", candidates=("w", "w") if TASKS[task].answers else PICTURES)


def test_media_come_first_then_the_filled_template() -> None:
    *media, text = parts(PAIR)
    assert media == ["<image>", "<image>"]
    assert text.startswith("caption: a red circle\n")
    assert prompts.render(PAIR).images == PICTURES
    assert prompts.render(PAIR.swapped()).images == PICTURES[::-1]
    clips = Example("v", task="video_gen", prompt="it moves", candidates=CLIPS)
    assert parts(clips)[:-1] == ["<video>", "<video>"]
    assert prompts.render(clips).videos == CLIPS


def test_understanding_shows_its_context_and_both_answers() -> None:
    clip, text = parts(ANSWERS)
    assert clip == "<video>"
    assert text.startswith("question: which way?\nanswer 1: it moves left\nanswer 2: right\n")


@pytest.mark.parametrize("task", TASKS)
def test_every_template_is_short_and_names_the_form_of_the_answer(task: str) -> None:
    example = record_of(task)
    reasoned, direct = parts(example)[-1], parts(example, think=False)[-1]
    for text in (reasoned, direct):
        assert len(text.split()) <= 45
        assert "<answer>" in text
        assert (" N is better</answer>" in text) is TASKS[task].compares
    for dimension in TASKS[task].dimensions:
        assert dimension.lower() in reasoned
    assert "<think>" in reasoned
    assert ("(x/10)" in reasoned) is TASKS[task].compares
    assert "think" not in direct


def test_own_prompt_is_used_unchanged_with_media_in_place_of_its_tags() -> None:
    tagged = Example("t", text="First <image>, then\n<image>\nWhich?", candidates=PICTURES)
    assert parts(tagged) == ["First ", "<image>", ", then\n", "<image>", "\nWhich?"]
    untagged = Example("u", task="image_gen", prompt="ignored", text=" Which? ", candidates=PICTURES)
    assert parts(untagged) == ["<image>", "<image>", " Which? "]


def test_media_follow_the_order_of_mixed_tags() -> None:
    chat = prompts.render(Example("m", text="<video><image>", context=(PICTURES[0], CLIPS[0])))
    assert [part["type"] for part in chat.messages[0]["content"]] == ["video", "image"]
    assert (chat.images, chat.videos) == (PICTURES[:1], CLIPS[:1])


def test_a_clip_of_frames_fills_one_picture_tag_a_frame() -> None:
    chat = prompts.render(Example("f", task="video_gen", text="<image><image> vs <image><image>", candidates=CLIPS))
    assert [media.source for media in chat.images] == ["a.png", "b.png", "c.png", "d.png"]
    assert chat.videos == ()


def test_earlier_turns_are_messages_of_their_own() -> None:
    history = [{"role": "user", "content": "<image>Who?"}, {"role": "assistant", "content": "Ada."}]
    chat = prompts.render(Example("h", text="And <image>?", context=PICTURES, meta={"history": history}))
    assert [message["role"] for message in chat.messages] == ["user", "assistant", "user"]
    assert chat.messages[0]["content"][0] == {"type": "image"}
    assert chat.images == PICTURES


def test_a_users_template_and_its_braces(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text('Judge {{"a": 1}} by [{caption}].\n')
    assert parts(PAIR, template=str(file))[-1] == 'Judge {"a": 1} by [a red circle].'
    braced = Example("b", task="image_gen", prompt="{caption} {x}", candidates=PICTURES)
    assert parts(braced, template=str(file))[-1].endswith("[{caption} {x}].")


@pytest.mark.parametrize(
    ("wording", "message"),
    [
        ("by {captoin}", r"unknown slot \{captoin\}; known here: \{caption\}; did you mean 'caption'"),
        ("by {caption:>5}", r"unknown slot \{caption:>5\}"),
        ("by {caption", r"mine.txt: expected '}' before end of string; double a brace"),
    ],
)
def test_a_broken_template_says_so(tmp_path: Path, wording: str, message: str) -> None:
    (tmp_path / "mine.txt").write_text(wording)
    with pytest.raises(BadInputError, match=message):
        prompts.render(PAIR, template=str(tmp_path / "mine.txt"))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (
            Example("r", text="<image>", context=PICTURES),
            r"record r: more images than placeholders: 2 image\(s\) for 1",
        ),
        (Example("r", text="<image><image>", context=PICTURES[:1]), "record r: more placeholders than images"),
        (Example("r", text="<video>", context=()), "more placeholders than videos"),
        (Example("r", prompt="x"), "neither a prompt of its own nor a task"),
        (Example("r", task="image_gen", candidates=PICTURES), "needs a caption and the record has none"),
        (Example("r", task="image_und", context=PICTURES[:1], candidates=("a", "b")), "needs a question"),
        (
            Example("r", task="image_und", prompt="q", candidates=("a",)),
            "2 or more written answers, the record has 1",
        ),
        (Example("r", task="image_gen", prompt="<|image_pad|>", candidates=PICTURES), r"holds '<\|image_pad\|>'"),
        (Example("r", task="image_und", prompt="q", candidates=("a", "<|im_end|>")), "reads as a control token"),
        (Example("r", text="a<|vision_start|>", candidates=PICTURES), "control token"),
    ],
)
def test_what_cannot_be_rendered(example: Example, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        prompts.render(example)


def test_the_two_families_ask_for_their_form_and_share_the_direct_question() -> None:
    lines, blocks = (parts(PAIR, template=family)[-1] for family in wording.WORDINGS)
    assert lines == parts(PAIR)[-1]
    assert lines != blocks
    assert "caption: a red circle\n" in blocks
    assert "\n2. Aesthetics:\n    Image 1 (x/10) - reasons;\n    Image 2 (y/10) - reasons\n3. " in blocks
    one, other = (parts(PAIR, template=family, think=False)[-1] for family in wording.WORDINGS)
    assert one == other


@pytest.mark.parametrize("task", COMPARISONS)
def test_an_answer_in_the_form_that_v2_shows_parses_with_its_scores(task: str) -> None:
    asked = parts(record_of(task), template="v2")[-1]
    form = asked[asked.index("<think>") :]
    answer = re.sub(r"([xy])\+\1\+\1=sum", lambda m: {"x": "7+7+7=21", "y": "4+4+4=12"}[m[1]], form)
    answer = answer.replace("(x/10)", "(7/10)").replace("(y/10)", "(4/10)").replace(" N ", " 1 ")
    verdict = parse(answer)
    assert (verdict.winner, verdict.failure) == (1, None)
    assert verdict.scores == dict.fromkeys(TASKS[task].dimensions, (7.0, 4.0))
    assert (verdict.totals, verdict.margin) == ((21.0, 12.0), 9.0)
    assert score_agreement(verdict)


@pytest.mark.parametrize("task", COMPARISONS)
def test_an_answer_in_the_form_that_v1_asks_for_parses_with_its_scores(task: str) -> None:
    noun = TASKS[task].noun
    asked = parts(record_of(task))[-1]
    assert f"{noun} 1 (x/10)" in asked
    assert f"{noun} 2 (x/10)" in asked
    rows = [
        f"{n}. {name}: {noun} 1 (7/10) - a; {noun} 2 (4/10) - b" for n, name in enumerate(TASKS[task].dimensions, 1)
    ]
    totals = f"Total score:\n{noun} 1: 7+7+7=21\n{noun} 2: 4+4+4=12"
    verdict = parse("<think>\n" + "\n".join(rows) + f"\n{totals}\n</think>\n<answer>{noun} 1 is better</answer>")
    assert verdict.failure is None
    assert verdict.scores == dict.fromkeys(TASKS[task].dimensions, (7.0, 4.0))
    assert score_agreement(verdict)


@pytest.mark.parametrize("task", [name for name in TASKS if TASKS[name].candidates == 1])
@pytest.mark.parametrize("think", [True, False])
@pytest.mark.parametrize("template", wording.WORDINGS)
def test_a_score_in_the_form_that_is_asked_for_parses(task: str, think: bool, template: str) -> None:
    asked = parts(record_of(task), think=think, template=template)[-1]
    reply = ("<think>why</think>" if think else "") + asked[asked.index("<answer>") :].replace(": x", ": 3.5")
    verdict = TASKS[task].read(reply, think=think)
    assert (verdict.winner, verdict.failure) == (None, None)
    assert verdict.scores == dict.fromkeys(TASKS[task].dimensions, (3.5,))


def test_a_folder_holds_one_wording_a_task(tmp_path: Path) -> None:
    (tmp_path / "image_gen.txt").write_text("which of [{caption}]?\n")
    assert parts(PAIR, template=tmp_path)[-1] == "which of [a red circle]?"
    assert parts(PAIR, template=str(tmp_path), think=False) == parts(PAIR, think=False), "the shipped direct question"
    (tmp_path / "image_gen_direct.txt").write_text("quick: {caption}")
    assert parts(PAIR, template=str(tmp_path), think=False)[-1] == "quick: a red circle"
    with pytest.raises(BadInputError, match=rf"prompt template {tmp_path}: the folder holds no video_und\.txt; write"):
        parts(ANSWERS, template=str(tmp_path))
    (tmp_path / "image_gen.txt").write_text("{captoin}")
    with pytest.raises(BadInputError, match=rf"template {tmp_path}/image_gen\.txt: unknown slot"):
        parts(PAIR, template=str(tmp_path))


def test_a_file_is_read_as_text_of_any_editor(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfon {caption}\r\nwhich?\r\n")
    assert parts(PAIR, template=str(tmp_path / "t.txt"))[-1] == "on a red circle\nwhich?"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("nowhere.txt", r"prompt template 'nowhere\.txt': neither a shipped family \(v1, v2\) nor a file or folder"),
        ("V2", r"prompt template 'V2': neither .*; did you mean 'v2'\? give a family"),
        ("v2.", r"did you mean 'v2'\?"),
        (
            "Given a caption, " * 40,
            r"prompt template 'Given a caption, [^']*\.\.\.': neither .* the path of a text file",
        ),
        (".", r"prompt template \.: the folder holds none of image_gen\.txt, video_gen\.txt, .*; write one for each"),
        ("empty.txt", r"prompt template empty\.txt: the file is empty"),
        ("latin.txt", r"prompt template latin\.txt: not UTF-8 text .*; save it as UTF-8"),
    ],
)
def test_what_is_no_template(in_folder: Path, template: str, message: str) -> None:
    (in_folder / "empty.txt").write_text("\n")
    (in_folder / "latin.txt").write_bytes(b"sch\xf6n")
    with pytest.raises(BadInputError, match=message):
        prompts.render(PAIR, template=template)


def test_provenance_tells_one_state_of_a_wording_from_another(tmp_path: Path) -> None:
    shipped = {"prompt_template": "v2", "prompt_version": wording.PROMPT_VERSION}
    assert wording.template_provenance("v2") == shipped
    (tmp_path / "image_gen.txt").write_text("{caption}")
    first = wording.template_provenance(tmp_path)
    assert first == wording.template_provenance(str(tmp_path))
    assert first["prompt_template"] == str(tmp_path)
    (tmp_path / "image_gen_direct.txt").write_text("{caption}")
    second = wording.template_provenance(tmp_path)
    (tmp_path / "image_gen_direct.txt").write_text("{caption}?")
    third = wording.template_provenance(tmp_path)
    assert len({item["prompt_version"] for item in (first, second, third)}) == 3
    assert wording.template_provenance(tmp_path / "image_gen.txt")["prompt_version"].startswith("sha256:")


def test_phrases_are_those_that_the_shipped_tokenizer_was_built_over_in_this_order() -> None:
    phrases = [phrase.rstrip(" ") for phrase in wording.template_phrases(PAPER_TASKS)]
    tokenizer = json.loads((ASSETS / "urt-tiny" / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    found = [ids[phrase] for phrase in phrases]
    assert found == list(range(found[0], found[0] + 12))


def test_phrases_and_slots_make_up_every_shipped_prompt() -> None:
    phrases = wording.template_phrases(PAPER_TASKS)
    assert "caption:" in phrases
    for text, words in (
        (parts(PAIR)[-1], (" a red circle",)),
        (parts(ANSWERS)[-1], (" which way?", " it moves left", " right")),
    ):
        for piece in (*words, *sorted(phrases, key=len, reverse=True)):
            text = text.replace(piece, "", 1)
        assert text == ""
