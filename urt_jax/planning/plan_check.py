"""The error of the formulas on this machine: an SFT step of the benchmark, predicted and timed."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median

from urt_jax.config import BenchConfig
from urt_jax.errors import BadInputError
from urt_jax.planning.bench_programs import measure, probe
from urt_jax.planning.layout import Layout
from urt_jax.planning.timing import Speed, program_phase
from urt_jax.planning.workloads import workload

SIZE = "small"


@dataclass(frozen=True)
class Checked:
    """Seconds of one SFT step: predicted from measured rates, and measured."""

    predicted: float
    measured: float
    machine: str

    @property
    def error(self) -> float:
        """The relative error of the prediction."""
        return self.predicted / self.measured - 1

    def __str__(self) -> str:
        return (
            f"Checked on {self.machine}: by the same formulas, at rates measured here, an SFT step of the benchmark's "
            f"{SIZE!r} takes {self.predicted:.2f} s; timed: {self.measured:.2f} s ({100 * self.error:+.0f} %)."
        )


def check_here(folder: Path) -> Checked:
    """Measure this machine's rates and one program on it, and predict the program's time from the rates.

    Raises:
        BadInputError: the program could not be timed.
    """
    config = BenchConfig(workdir=str(folder), sizes=(SIZE,), cases=("sft",), repetitions=3)  # type: ignore[arg-type]
    before = probe(config, folder)
    told = measure(config, folder, SIZE, "sft", with_peers=False)["ours"]
    if "failed" in told:
        raise BadInputError(f"config.check: the SFT step could not be timed here: {told['failed']}")
    seconds = median(repetition["wall"] for repetition in told["repetitions"])
    # The rates of a shared machine vary; the faster of the two probes is nearer to its full speed.
    machine = max(before, probe(config, folder), key=lambda probed: probed["flops"][probed["dtype"]])
    return Checked(predict(machine), seconds, f"{machine['cpu']}, {machine['cores']} cores")


def predict(machine: dict[str, object]) -> float:
    """Return the seconds of the step by formula, without remat, at the rates that ``probe_machine`` measured."""
    work, computed = workload(SIZE), {"float32": 4, "bfloat16": 2}[str(machine["dtype"])]
    rates = machine["flops"]
    assert isinstance(rates, dict)
    devices, flops, bandwidth = (
        float(str(x)) for x in (machine["devices"], rates[machine["dtype"]], machine["bandwidth"])
    )
    layout = Layout(1, 1, 1, work.rows.sft_rows)
    phase = program_phase(work, layout, "sft", remat=False, computed=computed)
    return phase.seconds(Speed(devices * flops, devices * bandwidth, 1.0, 1.0, 1.0))
