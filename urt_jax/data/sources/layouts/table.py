"""The table of published layouts, and how the one of a row is found: by its columns, or by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from urt_jax.data.sources.files import RecordError
from urt_jax.data.sources.layouts import answers, clips, edits, pictures, pools
from urt_jax.data.sources.layouts.row import Layout
from urt_jax.errors import BadInputError, unknown_choice
from urt_jax.files.fields import Fields

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (*pools.LAYOUTS, *pictures.LAYOUTS, *edits.LAYOUTS, *clips.LAYOUTS, *answers.LAYOUTS)
}


def find_layout(fields: Fields) -> Layout | None:
    """Return the layout that a row has; None if it has none of them, so that it is read as our own.

    Raises:
        RecordError: it has several.
    """
    found = [layout for layout in LAYOUTS.values() if layout.fits(fields)]
    if len(found) > 1:
        raise RecordError(
            f"{fields.where}: it fits the layouts {', '.join(layout.name for layout in found)}; name one with "
            "data.layout",
            reason="several layouts",
        )
    return found[0] if found else None


def layout_named(name: str) -> Layout:
    """Return the layout of this name; ``module:function`` is a user's own conversion of ``Fields`` to our own fields.

    Raises:
        BadInputError: there is no such layout, module or function.
    """
    module, colon, function = name.partition(":")
    if not colon:
        if name not in LAYOUTS:
            raise BadInputError(f"layout {unknown_choice(name, list(LAYOUTS))}; or module:function of your own")
        return LAYOUTS[name]
    try:
        convert: Callable[[Fields], dict[str, Any]] | None = getattr(importlib.import_module(module), function, None)
    except Exception as error:
        raise BadInputError(f"layout {name!r}: importing {module!r} raised {type(error).__name__}: {error}") from error
    if not callable(convert):
        raise BadInputError(f"layout {name!r}: module {module!r} has no function {function!r}")
    return Layout(name, frozenset(), convert)
