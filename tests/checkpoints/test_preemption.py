"""A SIGTERM is noted inside the block and kills outside of it."""

import os
import signal

from urt_jax.checkpoints.preemption import PreemptionNotice


def test_sigterm_is_noted_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with PreemptionNotice() as notice:
        assert not notice.arrived
        os.kill(os.getpid(), signal.SIGTERM)
        assert notice.arrived
    assert signal.getsignal(signal.SIGTERM) is before
