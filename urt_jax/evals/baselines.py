"""Blind baselines: accuracies of judges that see only part of a pair, which reveal artefacts of the data."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8

from urt_jax.data.examples import Example, Media
from urt_jax.data.images import load_image
from urt_jax.data.video import load_frames
from urt_jax.errors import BadInputError
from urt_jax.tasks import TASKS

HISTOGRAM_BINS = 8


def blind_baselines(train: Sequence[Example], heldout: Sequence[Example]) -> dict[str, float]:
    """Fit each baseline on ``train`` and return its accuracy on ``heldout``; undecided pairs are left out.

    * caption only: naive Bayes over the words of the prompt;
    * one candidate only: the more frequent outcome of a candidate with these gold dimension scores, an upper bound on
      every judge that looks at one candidate; NaN where the records carry no gold scores;
    * answer length: a linear model on the differences in words and in characters; 0.5 where candidates are not text;
    * pixel statistics: a linear model on the candidates' differences in brightness, contrast, edges and histogram, or
      on these statistics of the shared picture where candidates are text.

    Baselines on differences between the candidates are judged in both orders. A baseline on a caption or a shared
    picture gives the same verdict in both orders and is right in just one, so it is judged in the given order.

    Raises:
        BadInputError: one of the two sets holds no decided pair.
    """
    fit, test = _decided_pairs(train, "train"), _decided_pairs(heldout, "heldout")
    return {
        "caption only": _caption_only(fit, test),
        "one candidate only": _one_candidate_only(fit, test),
        "answer length": _answer_length(fit, test),
        "pixel statistics": _pixel_statistics(fit, test),
    }


def _decided_pairs(examples: Sequence[Example], name: str) -> list[Example]:
    decided = [example for example in examples if len(example.candidates) == 2 and example.label in (1, 2)]
    if not decided:
        raise BadInputError(
            f"blind baselines need pairs with a decided label; none of the {len(examples)} records of {name!r} is one"
        )
    return decided


def _outcomes(examples: list[Example]) -> Float[np.ndarray, " n"]:
    """Return +1 where the first candidate is the better one, else -1."""
    return np.array([1.0 if example.label == 1 else -1.0 for example in examples])


def _accuracy(margins: Float[np.ndarray, " n"], outcomes: Float[np.ndarray, " n"]) -> float:
    """Return the share of margins with the outcome's sign; a margin of 0 counts as half."""
    return float(np.mean(0.5 + 0.5 * np.sign(margins) * outcomes))


def _caption_only(fit: list[Example], test: list[Example]) -> float:
    counts: dict[str, list[float]] = {}
    prior = [0.0, 0.0]
    for example in fit:
        side = int(example.label == 2)
        prior[side] += 1
        for word in set(example.prompt.lower().split()):
            counts.setdefault(word, [1.0, 1.0])[side] += 1
    odds = {word: float(np.log(first / second)) for word, (first, second) in counts.items()}
    base = float(np.log((prior[0] + 1) / (prior[1] + 1)))
    margins = [
        base + sum(odds.get(word, base) - base for word in sorted(set(example.prompt.lower().split())))
        for example in test
    ]
    return _accuracy(np.array(margins), _outcomes(test))


def _gold_scores(example: Example) -> list[tuple[str, ...]] | None:
    """Return each candidate's gold scores, preceded by the task."""
    scores = example.meta.get("scores")
    if not scores or example.task is None:
        return None
    names = [name for name in TASKS[example.task].dimensions if name in scores]
    return [(example.task, *(str(scores[name][side]) for name in names)) for side in range(2)]


def _one_candidate_only(fit: list[Example], test: list[Example]) -> float:
    wins: dict[tuple[str, ...], int] = {}
    for example in fit:
        for side, key in enumerate(_gold_scores(example) or [], start=1):
            wins[key] = wins.get(key, 0) + (1 if example.label == side else -1)
    margins, outcomes = [], []
    for example in test:
        for side, key in enumerate(_gold_scores(example) or [], start=1):
            margins.append(float(wins.get(key, 0)))
            outcomes.append(1.0 if example.label == side else -1.0)
    return _accuracy(np.array(margins), np.array(outcomes)) if wins and margins else float("nan")


def _linear_margins(
    fit: Float[np.ndarray, "n features"],
    outcomes: Float[np.ndarray, " n"],
    test: Float[np.ndarray, "m features"],
    *,
    penalty: float = 1.0,
) -> Float[np.ndarray, " m"]:
    """Fit a ridge regression of the outcomes; features are scaled by their root mean square, not centred."""
    scale = np.sqrt(np.mean(fit**2, axis=0)) + 1e-9
    fit, test = fit / scale, test / scale
    weights = np.linalg.solve(fit.T @ fit + penalty * np.eye(fit.shape[1]), fit.T @ outcomes)
    return test @ weights


def _answer_length(fit: list[Example], test: list[Example]) -> float:
    if not all(isinstance(candidate, str) for example in fit + test for candidate in example.candidates):
        return 0.5

    def differences(examples: list[Example]) -> Float[np.ndarray, "n 2"]:
        first, second = (
            np.array([[len(str(e.candidates[side]).split()), len(str(e.candidates[side]))] for e in examples])
            for side in (0, 1)
        )
        return (first - second).astype(float)

    # Swapping the candidates flips the sign, so both orders are right or wrong together.
    return _accuracy(_linear_margins(differences(fit), _outcomes(fit), differences(test)), _outcomes(test))


def _frames(medium: Media, name: str) -> UInt8[np.ndarray, "f h w 3"]:
    return load_image(medium, name=name)[None] if medium.kind == "image" else load_frames(medium, name=name)


def pixel_statistics(frames: UInt8[np.ndarray, "f h w 3"]) -> Float[np.ndarray, " features"]:
    """Return each channel's mean and deviation, edge energy, energy of changes in time, and the grey histogram."""
    pixels = frames.reshape(-1, 3).astype(np.float32)
    grey = pixels.mean(-1).reshape(frames.shape[:3])
    edges = [np.abs(np.diff(grey, axis=axis)).mean() for axis in (1, 2)]
    change = np.abs(np.diff(grey, axis=0)).mean() if len(frames) > 1 else 0.0
    histogram = np.bincount((grey * (HISTOGRAM_BINS / 256)).astype(np.int64).ravel(), minlength=HISTOGRAM_BINS)
    energies = [*pixels.mean(0), *pixels.std(0), *edges, change]
    return np.array([*(float(energy) / 255 for energy in energies), *(histogram / grey.size)])


def _pixel_statistics(fit: list[Example], test: list[Example]) -> float:
    features = [np.stack([_pixel_features(example) for example in examples]) for examples in (fit, test)]
    return _accuracy(_linear_margins(features[0], _outcomes(fit), features[1]), _outcomes(test))


def _pixel_features(example: Example) -> Float[np.ndarray, " features"]:
    media = [candidate for candidate in example.candidates if isinstance(candidate, Media)]
    if len(media) == 2:  # swapping flips the sign of the difference, so both orders are right or wrong together
        first, second = (pixel_statistics(_frames(medium, f"record {example.id}")) for medium in media)
        return first - second
    shared = [pixel_statistics(_frames(medium, f"record {example.id}")) for medium in example.context]
    width = len(pixel_statistics(np.zeros((1, 2, 2, 3), np.uint8)))
    return np.append(np.mean(shared, axis=0) if shared else np.zeros(width), 1.0)
