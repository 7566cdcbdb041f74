"""Rows of a data set of the Hugging Face hub: ``hf:org/name[@revision][:config][/split]``."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from urt_jax.data.sources.tables import TableRows
from urt_jax.errors import BadInputError

PREFIX = "hf:"
_NAME = re.compile(
    r"hf:(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+?))?(?::(?P<config>[\w.-]+))?(?:/(?P<split>[\w.-]+))?"
)


class HubName(NamedTuple):
    """A data set of the hub; None: the hub's default."""

    name: str
    revision: str | None
    config: str | None
    split: str | None


def hub_name(path: str) -> HubName:
    """Return the parts of a name.

    Raises:
        BadInputError: it has another form.
    """
    found = _NAME.fullmatch(path)
    if found is None:
        raise BadInputError(f"data {path!r}: needed hf:org/name[@revision][:config][/split]")
    return HubName(found["name"], found["revision"], found["config"], found["split"])


def hub_rows(path: str, *, first_label: int) -> TableRows:
    """Download a data set, once, and return its rows; pictures and clips stay undecoded.

    Raises:
        BadInputError: the name has another form, there is no such data set, configuration or split, or no network.
    """
    wanted = hub_name(path)
    found: Any = _download(path, wanted)
    if not hasattr(found, "cache_files"):
        raise BadInputError(
            f"data {path!r}: it has the splits {', '.join(found)}; add one, as {path}/{next(iter(found))}"
        )
    files = [file["filename"] for file in found.cache_files]
    if not files:
        raise BadInputError(f"data {path!r}: it holds no rows")
    return TableRows(files, root=None, first_label=first_label, name=f"{wanted.name}/{wanted.split or found.split}")


def _download(path: str, wanted: HubName) -> Any:
    import datasets  # takes most of a second, and only these names need it

    try:
        found = datasets.load_dataset(wanted.name, wanted.config, revision=wanted.revision, split=wanted.split)
    except Exception as error:  # of its network, of the hub, of the set's own files
        told = " ".join(str(error).split())[:300]
        raise BadInputError(
            f"data {path!r}: the hub did not give it ({type(error).__name__}: {told}); check the name, the "
            "configuration and the split, or, without network, download its files elsewhere and give them as data.path"
        ) from None
    if isinstance(found, dict) and len(found) == 1:
        return next(iter(found.values()))
    return found
