"""The judge of the stages' tests, for what feeds them."""

from tests.stages.conftest import coin_judge

__all__ = ["coin_judge"]
