"""Open a mesh of several processes, come late to the first computation, agree; arguments: seconds, --distributed."""

import sys
import time

from urt_jax.runs import processes
from urt_jax.runs.agreement import Agreement
from urt_jax.sharding.axes import MeshAxes
from urt_jax.stages.policy import open_mesh

if __name__ == "__main__":
    processes.connect(sys.argv[2].removeprefix("--distributed="))
    agreement = Agreement(open_mesh(MeshAxes()))
    if processes.number() == 1:
        time.sleep(float(sys.argv[1]))
    agreement.found(True)
    assert agreement.found(False)
    processes.disconnect()
