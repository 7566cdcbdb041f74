"""Models of the Hugging Face hub, downloaded as plain files into the standard cache; none of their code is run."""

import re
from pathlib import Path

from urt_jax.errors import BadInputError
from urt_jax.files.redaction import redacted

# The files that are read of a model. Pickles (*.bin, *.pt) and code (*.py) are never downloaded, so an "auto_map" in
# config.json names code that is not there.
READ_FILES = (
    "*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
NEEDED_FILES = ("config.json", "tokenizer_config.json", "*.safetensors")

_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(.+))?")
_ELSEWHERE = "or download the folder elsewhere and give its path"


def is_hub_name(name: str) -> bool:
    """Return whether a name has the form ``org/name`` or ``org/name@revision``."""
    return _HUB_NAME.fullmatch(name) is not None


def fetch_model(
    name: str, *, revision: str | None = None, endpoint: str | None = None, cache_dir: str | Path | None = None
) -> Path:
    """Download the needed files of a hub model, with a progress bar, and return their folder.

    Cached files are not downloaded again. Offline (``HF_HUB_OFFLINE=1``, or no connection) only the cache is used.

    Args:
        name: ``org/name``, or ``org/name@revision``.
        revision: branch, tag or commit; None is the one in ``name``, else the main branch.
        endpoint: address of the hub; None is the public one or ``HF_ENDPOINT``.
        cache_dir: None is the standard cache (``HF_HUB_CACHE``).

    Raises:
        BadInputError: no such model or revision, no access, no connection and nothing in the cache, a download that
            broke off, or a model without safetensors, config or tokenizer.
    """
    repo, asked = _split(name, revision)
    shown = repo if asked is None else f"{repo} at revision {asked!r}"
    from huggingface_hub import snapshot_download

    try:
        folder = Path(
            snapshot_download(
                repo,
                revision=asked,
                endpoint=endpoint,
                cache_dir=cache_dir,
                allow_patterns=list(READ_FILES),
                ignore_patterns=["*/*"],  # the model is in the top folder; subfolders hold other formats of it
            )
        )
    except Exception as error:  # network, disk and cache each raise their own types
        told = redacted(_told(error, asked))  # libraries quote addresses and headers
        raise BadInputError(f"model {shown}: no folder of that name here, and {told}") from None
    missing = [pattern for pattern in NEEDED_FILES if not any(folder.glob(pattern))]
    if missing:
        raise BadInputError(
            f"model {shown}: on the hub, but without {', '.join(missing)}; only folders in the published layout with "
            "safetensors are read: choose another model or revision, or convert it elsewhere and give the folder's path"
        )
    return folder


def _split(name: str, revision: str | None) -> tuple[str, str | None]:
    """Return the repository and the revision that the name and the ``revision`` setting give together."""
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise BadInputError(f"model {name!r} is not a hub name; give org/name, or org/name@revision")
    if revision is not None and match[2] is not None and revision != match[2]:
        raise BadInputError(f"model {name!r} came with revision {revision!r}; give one of the two")
    return match[1], revision if revision is not None else match[2]


def _told(error: Exception, revision: str | None) -> str:
    """Return what went wrong with the hub, and what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            "on the hub it is gated: ask for access on its page and log in (hf auth login, or the variable HF_TOKEN), "
            + _ELSEWHERE
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no such model, or it is private: check the spelling, log in (hf auth login), {_ELSEWHERE}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"on the hub it has no branch, tag or commit {revision or 'main'!r}: give one that its page lists"
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        if isinstance(error.__cause__ or error, errors.OfflineModeIsEnabled):
            return "the cache does not hold all of it while HF_HUB_OFFLINE forbids downloads: unset that, " + _ELSEWHERE
        reason = f" ({type(error.__cause__).__name__}: {_first_line(error.__cause__)})" if error.__cause__ else ""
        return (
            f"the hub cannot be reached{reason} while the cache does not hold all of it: check the connection, "
            + _ELSEWHERE
        )
    return (
        f"the download broke off ({type(error).__name__}: {_first_line(error)}): start again, which downloads only "
        f"the incomplete files, {_ELSEWHERE}"
    )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
