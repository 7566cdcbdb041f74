"""The judge and the records of the stories."""

from tests.stages.conftest import coin_judge, reasonings

__all__ = ["coin_judge", "reasonings"]
