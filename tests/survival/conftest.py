"""The judge of the short form."""

from tests.stages.conftest import coin_judge

__all__ = ["coin_judge"]
