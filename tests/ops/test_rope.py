"""Multimodal rotary positions: which frequency turns by which position row."""

import jax.numpy as jnp
import numpy as np
import pytest

from urt_jax.ops.rope import inverse_frequencies, mrope_angles, rotate, rotation


def rows_of(section: tuple[int, ...], *, interleaved: bool) -> str:
    """Return the position row (t, h, w) that each frequency turns by."""
    half = sum(section)
    settings = {"head_width": 2 * half, "theta": 100.0, "section": section, "interleaved": interleaved}
    angles = mrope_angles(jnp.array([1, 10, 100]).reshape(3, 1, 1), **settings)
    turns = np.asarray(angles)[0, 0] / np.asarray(inverse_frequencies(2 * half, 100.0))
    return "".join("thw"[int(row)] for row in np.round(np.log10(turns)))


@pytest.mark.parametrize(
    ("section", "interleaved", "rows"),
    [
        ((4, 3, 3), False, "tttthhhwww"),
        ((4, 3, 3), True, "thwthwthwt"),
        ((2, 3, 3), False, "tthhhwww"),
        ((2, 3, 3), True, "thwthwth"),  # a third place of width would lie behind the end
        ((4, 2, 2), True, "thwthwtt"),
        ((6, 0, 0), True, "tttttt"),
    ],
)
def test_frequencies_are_dealt_to_the_position_rows(section: tuple[int, ...], interleaved: bool, rows: str) -> None:
    assert rows_of(section, interleaved=interleaved) == rows


def test_the_published_section_deals_20_of_64_to_height_and_to_width() -> None:
    rows = rows_of((24, 20, 20), interleaved=True)
    assert rows == "thw" * 20 + "tttt"


def test_text_turns_the_same_in_every_form() -> None:
    positions = jnp.broadcast_to(jnp.arange(5), (3, 1, 5))
    forms = [
        mrope_angles(positions, head_width=20, theta=1e4, section=section, interleaved=interleaved)
        for section, interleaved in (((10, 0, 0), False), ((4, 3, 3), False), ((4, 3, 3), True))
    ]
    for form in forms[1:]:
        np.testing.assert_array_equal(form, forms[0])
    np.testing.assert_allclose(forms[0][0, 3], 3 * inverse_frequencies(20, 1e4), rtol=1e-6)


def test_rotation_turns_each_pair_by_its_angle() -> None:
    x = jnp.array([1.0, 0.0, 0.0, 2.0]).reshape(1, 1, 1, 4)  # pairs (1, 0) and (0, 2)
    turned = rotate(x, rotation(jnp.array([[[jnp.pi / 2, jnp.pi]]])))
    np.testing.assert_allclose(turned[0, 0, 0], [0.0, 0.0, 1.0, -2.0], atol=1e-6)
    assert rotate(x.astype(jnp.bfloat16), rotation(jnp.zeros((1, 1, 2)))).dtype == jnp.bfloat16
