"""Train by config files, one after the other, in one of several processes; the last argument may be ``--distributed``.

Run folders lie beside the files, under the files' names. GRPO judges nothing before and after.
"""

import sys
from pathlib import Path

from urt_jax.config import GrpoConfig, as_json
from urt_jax.main import read_arguments
from urt_jax.runs import processes
from urt_jax.runs.run_folder import open_run
from urt_jax.stages import grpo, policy, sft

if __name__ == "__main__":
    if sys.argv[-1].startswith("--distributed="):
        processes.connect(sys.argv.pop().removeprefix("--distributed="))
    for file in sys.argv[1:]:
        config = read_arguments([f"--config={file}", f"--workdir={Path(file).with_suffix('')}"])
        folder = open_run(config.workdir, as_json(config))
        if isinstance(config, GrpoConfig):
            mesh = policy.open_mesh(config.mesh)
            grpo.train_policy(
                config, folder, policy.open_model(config.model, config.pixels, seed=config.seed, mesh=mesh)
            )
        else:
            sft.run(config)
    processes.disconnect()
