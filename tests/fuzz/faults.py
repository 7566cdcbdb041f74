"""Inputs that were once reported to end in a trace, a hang, a full memory or a wrong result without a word."""

import struct
import zlib
from typing import Any


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _blank_png(side: int) -> bytes:
    """Return a sound grey picture of side x side pixels in a few bytes."""
    rows = zlib.compress(bytes((side + 1) * side), 9) if side <= 4096 else b""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _row(**fields: Any) -> bytes:
    import json

    base = {"caption": "a cat", "images": ["a.png", "b.png"], "label": 1}
    return json.dumps({key: value for key, value in (base | fields).items() if value is not ...}).encode()


FAULTS: dict[str, tuple[Any, ...]] = {
    "records": (
        _row(caption="a \ud83d"),
        _row(label=0),
        _row(label=float("nan")),
        _row(scores={"Aesthetics": [9]}),
        _row(history=[{"role": "user"}]),
        _row(answers="yes"),
        _row(answers=[None, {}]),
        _row(votes=[float("nan"), -3]),
        _row(context_images=-1),
        _row(images=["iVBORw0KGgo" * 40, "b.png"]),
        _row(images=["/dev/stdin", "b.png"]),
        _row(images=["a\0b", "b.png"]),
        _row(images=...) + b"[" * 5000,
        b'{"caption": "a", "caption": "b", "images": ["a.png", "b.png"], "label": 1}',
        _row(label=..., label_0=float("nan"), images=..., jpg_0="a.png", jpg_1="b.png"),
        _row(label=..., label_0=7, images=..., jpg_0="a.png", jpg_1="b.png"),
        _row(problem=None),
        b"\xff\xfe" + _row(),
        _row(videos=["c.gif", "c.gif"], images=..., fps=1e-7),
        _row(id={"a": 1}),
        _row(meta=[1]),
    ),
    "mixtures": (b"\xff", b"[" * 5000, b"datasets: 7", b"datasets: [{json_path: rows.yaml}]", b"a: 1\na: 2"),
    "pictures": (
        _blank_png(2**14),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"",
    ),
    "texts": ("\ud83d", "<think>" * 20_000, "<think>\n" + "1. A: (" * 20_000, "9+" * 50_000, "(9/10" * 50_000),
    "command lines": (
        ["--config=configs/sft.py", "--config.steps=1e400"],
        ["--config=configs/sft.py", "--config.steps=" + "9" * 5000],
        ["--config=configs/sft.py", "--config.data[0].path=((((("],
        ["--config=\udcff.py"],
        ["--config=" + "x" * 300 + ".py"],
        ["--config=configs"],
        ["--config=configs/sft.py", "--workdir=README.md/below"],
    ),
    "chat templates": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 10**9 }}",
        "{{ 1/0 }}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
    ),
    "adapters": tuple(
        ("adapter_config.json", text.encode())
        for text in (
            '{"peft_type": "LORA", "r": 3, "lora_alpha": NaN, "target_modules": ["q_proj"]}',
            '{"peft_type": "LORA", "r": "x", "lora_alpha": 6, "target_modules": ["q_proj"]}',
            '{"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": "*q_proj"}',
            '{"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": "(a+)+$"}',
            '{"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": "(.*)*(.*)*(.*)*x"}',
        )
    ),
    "run folders": tuple(
        (name, content)
        for name in ("config.json", "result.json", "metrics.jsonl", "judgements.jsonl", "samples.jsonl")
        for content in (b"\xff\n", b"[" * 5000 + b"\n", b"7\n", b"null\n", b'{"step": "x"}\n', b"{\n", b"")
    ),
}
