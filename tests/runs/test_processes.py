"""How processes are told to find each other, and that one alone needs nobody; tests/processes has several."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes.together import REPOSITORY, free_port
from urt_jax.main import main
from urt_jax.runs import processes
from urt_jax.runs.agreement import Agreement


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("two", "--distributed=two is not understood; give auto, or HOST:PORT,COUNT,NUMBER such as 10.0.0.1:8476,2,0"),
        ("host:1,2", "is not understood"),
        ("host,2,0", "is not understood"),
        ("host:port,2,0", "is not understood"),
        ("host:1,2,-1", "is not understood"),
        ("host:1,2,2", "2 processes are numbered 0 to 1, not 2"),
    ],
)
def test_what_does_not_say_how_to_find_each_other_is_refused(where: str, message: str) -> None:
    with pytest.raises(processes.ProcessesError, match=message):
        processes.connect(where)


def test_the_command_line_says_so(capsys: pytest.CaptureFixture[str], in_folder: Path) -> None:
    config = (
        "from ml_collections import ConfigDict\ndef get_config(preset=''):\n    return ConfigDict({'stage': 'sft'})"
    )
    (in_folder / "sft.py").write_text(config)
    assert main(["--config=sft.py", "--distributed=here"]) == 2
    assert capsys.readouterr().err.startswith("error: --distributed=here is not understood; give auto, or HOST:PORT")
    assert not (in_folder / "runs").exists()


def test_who_waits_for_others_that_never_come_says_so_and_ends() -> None:
    """Process 0 without process 1, and process 1 without process 0."""
    code = "import sys; from urt_jax.runs import processes; processes.CONNECT_S = 3; processes.connect(sys.argv[1])"
    addresses = [f"127.0.0.1:{free_port()},2,{number}" for number in (0, 1)]
    waiting = [
        subprocess.Popen([sys.executable, "-c", code, where], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
        for where in addresses
    ]
    for where, process in zip(addresses, waiting):
        _, told = process.communicate(timeout=120)
        assert process.returncode == 2, told[-2000:]
        assert f"error: the processes of this run did not find each other by '{where}' in 3 s; start" in told


def test_one_process_is_the_first_of_one_and_waits_for_nobody() -> None:
    assert (processes.number(), processes.count(), processes.is_first()) == (0, 1, True)
    assert processes.gather({"a": 1}) == [{"a": 1}]
    assert processes.of_first(lambda: sys.maxsize) == sys.maxsize
    processes.barrier()
    processes.tell_notice()
    processes.disconnect()
    with processes.taking_notice(lambda: pytest.fail("there is nobody to take it from")):
        pass


def test_one_process_agrees_with_itself_at_once() -> None:
    agreement = Agreement(None)
    assert [agreement.found(up) for up in (False, True, False)] == [False, True, False]
