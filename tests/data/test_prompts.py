"""Rendered questions: wording, media order, the record's own prompt, and what is refused."""

from pathlib import Path

import pytest

from urt_jax.data import prompts
from urt_jax.data.examples import DIMENSIONS, TASKS, BadInputError, Example, Media

PICTURES = (Media("image", "1.png"), Media("image", "2.png"))
CLIPS = (Media("video", ["a.png", "b.png"]), Media("video", ["c.png", "d.png"]))
PAIR = Example("p", task="image_gen", prompt="a red circle", candidates=PICTURES)
ANSWERS = Example("q", task="video_und", prompt="which way?", context=CLIPS[:1], candidates=("it moves left", "right"))


def parts(example: Example, **options: object) -> list[str]:
    """Return the user message as a list of texts and <kind> marks."""
    content = prompts.render(example, **options).messages[-1]["content"]  # type: ignore[arg-type]
    return [part["text"] if part["type"] == "text" else f"<{part['type']}>" for part in content]


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
    example = Example("x", task=task, prompt="w", candidates=("w", "w") if task.endswith("und") else PICTURES)  # type: ignore[arg-type]
    reasoned, direct = parts(example)[-1], parts(example, think=False)[-1]
    for text in (reasoned, direct):
        assert len(text.split()) <= 40
        assert " N is better</answer>" in text
    for dimension in DIMENSIONS[task]:
        assert dimension.lower() in reasoned
    assert "<think>" in reasoned
    assert "(x/10)" in reasoned
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
        ("by {captoin}", r"unknown slot \{captoin\}; known here: \{caption\}; did you mean \{caption\}"),
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
            "two or more written answers, the record has 1",
        ),
        (Example("r", task="image_gen", prompt="<|image_pad|>", candidates=PICTURES), r"holds '<\|image_pad\|>'"),
        (Example("r", task="image_und", prompt="q", candidates=("a", "<|im_end|>")), "reads as a control token"),
        (Example("r", text="a<|vision_start|>", candidates=PICTURES), "control token"),
    ],
)
def test_what_cannot_be_rendered(example: Example, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        prompts.render(example)


def test_a_missing_template_file() -> None:
    with pytest.raises(BadInputError, match=r"prompt template nowhere\.txt: no such file"):
        prompts.render(PAIR, template="nowhere.txt")


def test_phrases_and_slots_make_up_every_shipped_prompt() -> None:
    phrases = prompts.template_phrases()
    assert "caption:" in phrases
    for text, words in (
        (parts(PAIR)[-1], (" a red circle",)),
        (parts(ANSWERS)[-1], (" which way?", " it moves left", " right")),
    ):
        for piece in (*words, *sorted(phrases, key=len, reverse=True)):
            text = text.replace(piece, "", 1)
        assert text == ""
