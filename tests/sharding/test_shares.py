"""Which rows a process makes, by the processes that the devices of a mesh belong to."""

from typing import Any

import numpy as np
import pytest

from tests.tiny import MERGE, PROCESSOR, make_chat, need
from urt_jax.data.collate import collate_prompts
from urt_jax.families.processor import padding_of
from urt_jax.sharding.mesh import make_mesh
from urt_jax.sharding.shares import WHOLE, Share, share_among, share_of, shown_by_all


def share(owners: Any, this: int) -> Share:
    return share_among(np.array(owners)[:, :, None], this)


def test_a_mesh_of_one_process_is_no_matter_of_shares() -> None:
    assert share_of(make_mesh(data=4, fsdp=2)) == share_of(None) == WHOLE
    assert share([[[3], [3]]], 3) == WHOLE
    assert WHOLE.cut([1, 2, 3]) == [1, 2, 3]
    assert WHOLE.size_of(3, "rows") == 3


def test_processes_hold_neighbouring_parts() -> None:
    found = share([[[0], [0]], [[1], [1]]], 1)
    assert found == Share(1, 2, (2, 3), (0, 1, 2, 3), leads=True, spans=True)
    assert found.cut(range(8)) == range(4, 8)
    assert found.size_of(8, "rows") == 4
    with pytest.raises(ValueError, match="rows is 6, and 2 processes split it into 4 parts"):
        found.size_of(6, "rows")


def test_processes_that_share_a_part_make_it_both_and_one_writes_it() -> None:
    owners = [[[0, 1]], [[2, 3]]]  # tensor is wider than a process
    found = [share(owners, this) for this in range(4)]
    assert [(one.number, one.of, one.leads) for one in found] == [(0, 2, 1), (0, 2, 0), (1, 2, 1), (1, 2, 0)]
    whole = share([[[0, 1]]], 1)
    assert (whole.number, whole.of, whole.leads, whole.spans) == (0, 1, False, True)


def test_parts_need_not_be_neighbours() -> None:
    """As on a TPU slice, whose mesh runs along the wires and not along the hosts."""
    found = share([[[0], [1], [0], [1]]], 1)
    assert (found.parts, found.order) == ((1, 3), (0, 2, 1, 3))


def test_rows_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="rows that overlap; let sequence x tensor divide the devices of a"):
        share([[[0, 0, 1], [1, 2, 2]]], 0)


@pytest.mark.parametrize("count", [1, 3, 7, 8])
def test_every_item_is_in_one_share(count: int) -> None:
    for of in (1, 2, 3):
        items = [item for number in range(of) for item in Share(number, of).cut(list(range(count)))]
        assert items == list(range(count))


def test_what_rows_show_is_counted_among_the_frames_of_all() -> None:
    """Two processes with two parts each, that lie alternately: every row shows the patches it showed alone."""
    chats = [make_chat(seed, text=3 + seed, pictures=[(2, 2)]) for seed in range(8)]
    parts = [(0, 2), (1, 3)]  # of each process, one chat of four a part and two of its own
    order = (0, 2, 1, 3)
    shape = need(chats, rows=4, frames=4)
    batches = []
    for number, mine in enumerate(parts):
        own = collate_prompts(chats[4 * number : 4 * number + 4], bucket=shape, **padding_of(PROCESSOR))
        batches.append(shown_by_all(own, Share(number, 2, mine, order, spans=True), merge=MERGE))

    def lie(of: Any) -> np.ndarray:
        """Put the rows of all where their parts lie."""
        pieces = np.concatenate([np.split(np.asarray(of(batch)), 2) for batch in batches])
        return np.concatenate([pieces[order.index(part)] for part in range(4)])

    patches = lie(lambda batch: batch.vision.patches_IPC)
    merged = patches.reshape(-1, MERGE * patches.shape[-1])
    index, tokens = lie(lambda batch: batch.vision_index_BT), lie(lambda batch: batch.tokens_BT)
    laid = [0, 1, 4, 5, 2, 3, 6, 7]  # chats by rows
    for row, chat in enumerate(laid):
        alone = collate_prompts([chats[chat]], bucket=shape._replace(rows=1, frames=1), **padding_of(PROCESSOR))
        np.testing.assert_array_equal(tokens[row], alone.tokens_BT[0])
        shown = alone.vision_index_BT[0] >= 0
        assert shown.any()
        own_merged = np.asarray(alone.vision.patches_IPC).reshape(-1, merged.shape[-1])
        np.testing.assert_array_equal(merged[index[row][shown]], own_merged[alone.vision_index_BT[0][shown]])
        np.testing.assert_array_equal(index[row][~shown], alone.vision_index_BT[0][~shown])
    assert shown_by_all(batches[0], WHOLE, merge=MERGE) is batches[0]


def test_all_shares_together_are_the_whole() -> None:
    whole = list(range(8))
    assert WHOLE.cuts(whole) == [whole]
    assert Share(1, of=4).cuts(whole) == [[0, 1], [2, 3], [4, 5], [6, 7]]
