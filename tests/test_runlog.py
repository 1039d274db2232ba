"""What a job says on the terminal and in its log, seen from outside the process."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow/scripts"
JOB = """
import ctypes, sys
from conceptcaps import runlog
from conceptcaps.errors import InputError

with runlog.capture(sys.argv[1], threads=1):
    {body}
"""


def run(tmp_path, body, stderr=subprocess.PIPE):
    log = tmp_path / "logs/job.log"
    done = subprocess.run(
        [sys.executable, "-c", JOB.format(body=body), str(log)],
        env=os.environ | {"PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )
    return done, log.read_text()


def test_everything_goes_to_the_log_native_libraries_too(tmp_path):
    body = "print('python'); sys.stdout.flush(); ctypes.CDLL(None).puts(b'native')"
    body += "; ctypes.CDLL(None).fflush(None)"
    done, log = run(tmp_path, body)
    assert done.returncode == 0 and done.stdout == done.stderr == ""
    assert "python" in log and "native" in log and "finished in" in log


def test_bad_input_is_its_message_alone(tmp_path):
    done, log = run(tmp_path, "raise InputError('taxonomy.yaml: tag twice')")
    assert done.returncode == 1
    assert done.stderr == "error: taxonomy.yaml: tag twice\n"
    assert "error: taxonomy.yaml: tag twice" in log and "Traceback" not in log


def test_a_fault_of_ours_keeps_its_traceback_in_the_log(tmp_path):
    done, log = run(tmp_path, "1 / 0")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ZeroDivisionError: division by zero\n(traceback in ")
    assert "Traceback" in log


PROGRESS = "[x for x in runlog.progress(range(3), what='shards')]"


def test_progress_in_a_log_is_plain_lines(tmp_path):
    done, log = run(tmp_path, PROGRESS)
    assert "shards: 3 in " in log and "\r" not in log
    assert done.stderr == ""


def test_progress_on_a_terminal_is_a_bar(tmp_path):
    if not hasattr(pty, "openpty"):
        pytest.skip("no pseudo-terminals on this system")
    ours, theirs = pty.openpty()
    run(tmp_path, PROGRESS, stderr=theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    os.close(theirs)
    assert ("shards" in shown and "3/3" in shown) or "0/3" in shown


def test_memory_that_a_job_frees_is_not_mapped_again(tmp_path):
    body = "import resource; a = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt"
    body += "; b = [(b'x' * 128_000_000, a())[1] for _ in range(6)]"
    body += "; print('faults', b[-1] - b[1])"
    done, log = run(tmp_path, body)
    assert done.returncode == 0
    assert int(log.split("faults ")[1].split()[0]) < 16_000  # of 31,250 pages, four times


def test_a_job_that_is_ended_leaves_no_temporary_file(tmp_path):
    body = (
        "import os, signal; from conceptcaps import io\n"
        f"    with io.atomic({str(tmp_path / 'hub')!r}) as folder:\n"
        "        folder.mkdir(); os.kill(os.getpid(), signal.SIGTERM); print('went on')"
    )
    done, log = run(tmp_path, body)
    assert done.returncode == 128 + 15 and "went on" not in log
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
