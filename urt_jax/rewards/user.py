"""User-defined rewards, named ``"package.module:function"`` in the settings and imported once."""

import importlib
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from urt_jax.errors import did_you_mean


class RewardError(RuntimeError):
    """A user's reward cannot be imported, or failed on a response; it is never skipped."""


@dataclass(frozen=True)
class UserReward:
    """One user-defined reward: ``function`` takes ``(*, text, solution, example)``, ``name`` is its name."""

    name: str
    function: Callable[..., Any]

    def score(self, *, text: str, solution: str, example: Any) -> float:
        """Return the reward of one response; NaN if the function returns None (no reward).

        Raises:
            RewardError: the function raised (its error is the cause), or returned neither a finite number nor None.
        """
        where = f"reward {self.name!r} on record {getattr(example, 'id', '?')}"
        try:
            value = self.function(text=text, solution=solution, example=example)
        except Exception as error:
            raise RewardError(f"{where} raised {type(error).__name__}: {error}") from error
        if value is None:
            return math.nan
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            kind = type(value).__name__
            raise RewardError(f"{where} gave {value!r} ({kind}); give a finite number, or None where there is none")
        return float(value)


def load_reward(spec: str) -> UserReward:
    """Import the function that ``spec`` names.

    Raises:
        RewardError: ``spec`` is not ``module:function``, there is no such module or function, or importing fails.
    """
    module_name, _, function_name = spec.partition(":")
    if not module_name or not function_name.isidentifier():
        raise RewardError(f"reward {spec!r} names no function; give module:function, such as my_rewards:clarity")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise RewardError(_why_no_module(spec, module_name, error)) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        hint = did_you_mean(function_name, known) or f"; it has {', '.join(known) or 'none'}"
        raise RewardError(f"reward {spec!r}: module {module_name!r} has no function {function_name!r}{hint}")
    return UserReward(function_name, function)


def _why_no_module(spec: str, module: str, error: Exception) -> str:
    missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
    if missing and (module == missing or module.startswith(f"{missing}.")):
        return (
            f"reward {spec!r}: there is no module {missing!r}; run from the folder that holds it, or put that folder "
            "on PYTHONPATH"
        )
    return f"reward {spec!r}: importing {module!r} raised {type(error).__name__}: {error}; fix the module"
