"""The axis key, and the batch records that several rooms share.

Axis key, used in annotations, name suffixes and einsum strings alike::

    B rows            T sequence         S cache slots      U generated tokens
    D width           F feed-forward     V vocabulary       L layers
    H head width      N query heads      K key/value heads  G query heads per key head
    C patch features  I images (frames)  P patches of one   Q questions
    R responses per question             M merged patches of one frame (P = M * merge**2)
    J learnt tokens of a row             Z parts that the tokens of a row are split into, over ``sequence``

A *frame* is one input of the vision tower: a picture, or one temporal patch of a video.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

Array = jax.Array | np.ndarray
GroupChange = Callable[[Array, int, int], Array]  # (array, axis of its rows, rows per group) -> changed array

TEXT, NEWLINE = -1, -2  # values of ``vision_index`` at tokens that show no feature of the tower


class FramePatches(NamedTuple):
    """One frame laid out for the vision tower, on the host (numpy).

    Patches come in the tower's own order (for a windowed tower window by window, each padded to its full number of
    slots), so window attention is a reshape and needs no permutation.
    """

    patches_PC: Float[np.ndarray, "P C"]
    positions_P2: Int[np.ndarray, "P 2"]  # (row, column) of each patch in the frame, 0 where padded
    mask_P: Bool[np.ndarray, " P"]  # True = real patch


class FrameBlend(NamedTuple):
    """The K merged patches whose weighted sum each token shows, for models that pool pictures after the projector."""

    sources_TK2: Int[np.ndarray, "T K 2"]  # (frame, merged patch slot); arbitrary where the weight is 0
    weights_TK: Float[np.ndarray, "T K"]  # all 0 for text and line ends


class EncodedChat(NamedTuple):
    """One chat encoded as token ids, positions and frames, on the host (numpy); not padded."""

    tokens_T: Int[np.ndarray, " T"]
    positions_3T: Int[np.ndarray, "3 T"]  # temporal, height, width positions of M-RoPE
    vision_T2: Int[np.ndarray, "T 2"]  # (frame, merged patch slot); (-1, -1) is text, (-2, -2) a line end
    frames: tuple[FramePatches, ...]
    blend: FrameBlend | None = None
    opening: str = ""  # start of the response that the prompt already holds: its reasoning, begun or left empty

    @property
    def next_position(self) -> int:
        """Position of the first token after this chat, the same in all three rows."""
        return int(self.positions_3T.max()) + 1 if self.positions_3T.size else 0


class VisionInput(NamedTuple):
    """All frames of a batch, padded to one number of slots; an all-False ``mask_IP`` row is padding."""

    patches_IPC: Float[Array, "I P C"]
    positions_IP2: Int[Array, "I P 2"]
    mask_IP: Bool[Array, "I P"]


class VisionFeatures(NamedTuple):
    """The vision tower's features of all frames: row ``i * M + m`` for merged patch m of frame i, ``E = I * M``."""

    merged_ED: Float[jax.Array, "E D"]
    deep_KED: Float[jax.Array, "K E D"] | None = None  # added after the decoder's first K layers (DeepStack)
    newline_D: Float[jax.Array, " D"] | None = None  # embedding at the end of a line of tiles


class FeatureBlend(NamedTuple):
    """The K rows of the flattened merged patches [I*M] whose weighted sum is each token's embedding."""

    index_BTK: Int[Array, "B T K"]
    weight_BTK: Float[Array, "B T K"]


class Targets(NamedTuple):
    """The tokens that are learnt from each row: each is predicted from the hidden state of the place before it.

    The next-token shift is done here, on the host. J is the same for all rows; what ``mask_BZJ`` leaves out is padding.
    Where ``sequence`` splits the tokens of a row, each part has its own, whose places count from the part's first::

        tokens   p p r r r | p p p r .     place   1 2 3 7     token   r r r r   (those of places 2 3 4 8)
    """

    place_BZJ: Int[Array, "B Z J"]
    token_BZJ: Int[Array, "B Z J"]
    mask_BZJ: Bool[Array, "B Z J"]


class Batch(NamedTuple):
    """Padded rows of text with the frames they show.

    ``segments_BT`` is 0 on padding and counts the packed sequences of a row from 1; attention never crosses it::

        tokens     <|im_start|> user ... <pad> answer ...   |  next packed sequence
        segments    1            1        1     1            |  2 2 2 ... 0 0
    """

    tokens_BT: Int[Array, "B T"]
    positions_3BT: Int[Array, "3 B T"]
    segments_BT: Int[Array, "B T"]
    vision_index_BT: Int[Array, "B T"]  # each token's row of the flattened merged patches [I*M], or TEXT, or NEWLINE
    vision: VisionInput | VisionFeatures  # all frames, or the tower's features of them
    targets: Targets | None = None  # what is learnt, of a batch for training
    blend: FeatureBlend | None = None  # for tokens that show a weighted sum; ``vision_index_BT`` is its first row

    @property
    def group_size(self) -> int:
        """Number of rows that must stay together: 1, since rows are independent."""
        return 1

    @property
    def groups(self) -> int:
        """Number of rows."""
        return len(self.tokens_BT)

    @property
    def places(self) -> int:
        """Number of tokens, padding included."""
        return int(np.prod(self.tokens_BT.shape))

    def map_groups(self, change: GroupChange) -> "Batch":
        """Return the batch with ``change`` applied to every array but the frames."""
        return self._replace(
            tokens_BT=change(self.tokens_BT, 0, 1),
            positions_3BT=change(self.positions_3BT, 1, 1),
            segments_BT=change(self.segments_BT, 0, 1),
            vision_index_BT=change(self.vision_index_BT, 0, 1),
            targets=None if self.targets is None else Targets(*(change(part, 0, 1) for part in self.targets)),
            blend=None if self.blend is None else FeatureBlend(*(change(part, 0, 1) for part in self.blend)),
        )

    def take_groups(self, groups: Int[np.ndarray, " groups"]) -> "Batch":
        """Return these rows with all frames, so that the rows' ``vision_index_BT`` stays valid."""
        return self.map_groups(lambda x, axis, size: np.take(x, groups, axis))


class PromptedRows(NamedTuple):
    """Q prompts with ``B / Q`` responses each, question-major: every prompt is held once, its responses attend to it.

    Prompts are left-padded, responses right-padded; responses are trained where ``mask_BU`` is True::

        prompt 0   . . p p p p      response 0 0   c c c .
                                    response 0 1   c c c c
    """

    prompts: Batch
    next_position_Q: Int[Array, " Q"]  # position of the first token of a response
    tokens_BU: Int[Array, "B U"]
    mask_BU: Bool[Array, "B U"]  # True up to and including the end token

    @property
    def group_size(self) -> int:
        """Number of responses to each question (R)."""
        return len(self.tokens_BU) // self.groups

    @property
    def groups(self) -> int:
        """Number of questions (Q)."""
        return len(self.next_position_Q)

    @property
    def places(self) -> int:
        """Number of tokens, padding included; each prompt counts once."""
        return self.prompts.places + int(np.prod(self.tokens_BU.shape))

    def map_groups(self, change: GroupChange) -> "PromptedRows":
        """Return the record with ``change`` applied to every array but the frames."""
        return PromptedRows(
            self.prompts.map_groups(change),
            change(self.next_position_Q, 0, 1),
            change(self.tokens_BU, 0, self.group_size),
            change(self.mask_BU, 0, self.group_size),
        )


class Rollout(NamedTuple):
    """R sampled responses to each of Q questions on the host, question-major rows ``B = Q * R``.

    It carries everything a later (even off-policy) update needs, so a rollout one step late has the same format. Each
    process has the prompts of its own share and, after the exchange, everything else of all shares.
    """

    prompts: Batch  # left-padded, one row per question
    next_position_Q: Int[np.ndarray, " Q"]  # position of the first token of a response
    tokens_BU: Int[np.ndarray, "B U"]  # sampled token ids, padding after the end token
    mask_BU: Bool[np.ndarray, "B U"]  # True up to and including the end token
    logp_BU: Float[np.ndarray, "B U"]  # the sampler's log-probability under the full tempered distribution
    ended_B: Bool[np.ndarray, " B"]  # by an end token or a stop string; the others are truncated at the limit
    texts: tuple[str, ...]  # decoded responses, with the opening that their prompts hold
    policy_step: int = 0  # optimizer step of the sampling policy
    prompt_ids: tuple[str, ...] = ()  # names of the questions in the random streams
    rewards: dict[str, np.ndarray] = {}  # noqa: RUF012  (never changed) parts by name, float [Q, R], NaN = missing
    decode_steps: int = 0  # number of decode steps of the model
    features: VisionFeatures | None = None  # of the prompts' frames, on the devices; None without frames

    def encoded(self) -> "Rollout":
        """Return the rollout with encoded frames in its prompts, for an update with a frozen tower."""
        return self if self.features is None else self._replace(prompts=self.prompts._replace(vision=self.features))
