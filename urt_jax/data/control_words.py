"""Escaping of control-token names in texts: they stay plain text, and only media parts make placeholders.

A word that the tokenizer would read as a control token ("<image>" in a caption) is replaced, before the chat template
is rendered, by a stand-in that contains no token; when the prompt is tokenised it is restored and split as text::

    a <image> b   ->   a \ufdd0 0 \ufdd1 b   ->   template, media   ->   a, ` <`, `image`, `>`, ` b`
"""

import copy
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from urt_jax.errors import BadInputError

OPEN, CLOSE = "\ufdd0", "\ufdd1"  # two of Unicode's noncharacters
_STAND_IN = re.compile(f"{OPEN}([0-9]+){CLOSE}")


@dataclass(frozen=True)
class ControlWords:
    """The names of the control tokens of one tokenizer."""

    tokenizer: Any
    names: tuple[str, ...]

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """A pattern that matches a name, the longer of two with the same start."""
        longest = sorted(self.names, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest))})" if longest else "(?!)")

    @cached_property
    def _starts(self) -> tuple[str, ...]:
        """Substrings of texts that may hold a name; searching them is ten times faster than matching the pattern."""
        return (OPEN, CLOSE, *sorted({name[:2] for name in self.names}))

    def hidden(self, text: str) -> str:
        """Return a text with a stand-in for each name.

        Raises:
            BadInputError: the text holds a character of the stand-ins.
        """
        for start in self._starts:
            if start in text:
                break
        else:
            return text
        if OPEN in text or CLOSE in text:
            raise BadInputError("a text holds the code U+FDD0 or U+FDD1, which stands for no character; remove it")
        return self.pattern.sub(lambda found: f"{OPEN}{self.names.index(found[0])}{CLOSE}", text)

    def token_ids(self, text: str) -> list[int]:
        """Return the ids of a prompt: names become control tokens, stand-ins plain text."""
        if OPEN not in text:
            ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids
        ids = []
        for place, piece in enumerate(self.pattern.split(text)):
            if place % 2:
                ids.append(self.tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                words = _STAND_IN.sub(lambda found: self.names[int(found[1])], piece)
                ids += self._plain.encode(words, add_special_tokens=False).ids
        return ids

    @cached_property
    def _plain(self) -> Any:
        """A copy of the tokenizer without control tokens; switching them off in the shared one would be a race."""
        try:
            plain = copy.deepcopy(self.tokenizer.backend_tokenizer)
        except Exception as error:  # a bare Exception, for a vocabulary with gaps
            folder = self.tokenizer.name_or_path
            raise BadInputError(f"tokenizer folder {folder}: it cannot be copied ({error}); copy its files") from None
        plain.encode_special_tokens = True
        return plain

    def __reduce__(self) -> tuple[Any, ...]:
        return ControlWords, (self.tokenizer, self.names)


def control_words(tokenizer: Any) -> ControlWords:
    """Return the names of all control tokens of a tokenizer."""
    added = tokenizer.added_tokens_decoder.values()
    names = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
    return ControlWords(tokenizer, tuple(sorted(name for name in names if name.strip())))
