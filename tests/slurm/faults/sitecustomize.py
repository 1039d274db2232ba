"""Breaks a job of rule generate_audio, once per fault; Python loads this where it is on its path.

$CONCEPTCAPS_FAULTS is a directory with a file for each pending fault, named exit, memory or time. A
job takes one by renaming it, so that no other job and no second attempt has it again.
"""

import errno
import os
import sys
import time
from pathlib import Path


def take(directory: Path) -> str | None:
    for fault in ("exit", "memory", "time"):
        try:
            (directory / fault).rename(directory / f"taken.{fault}.{os.environ['SLURM_JOB_ID']}")
        except OSError:
            continue
        return fault
    return None


def break_this_job() -> None:
    fault = take(Path(os.environ["CONCEPTCAPS_FAULTS"]))
    if fault == "exit":
        os._exit(3)
    if fault == "memory":
        hog = bytearray(3_000_000_000)
        hog[::4096] = b"x" * len(range(0, len(hog), 4096))  # touch every page
        time.sleep(60)
    if fault == "time":
        time.sleep(600)


def wear_the_nodes_clock() -> None:
    """Give files the modification time of this node's clock, as some network file systems do."""
    Path(os.environ["CONCEPTCAPS_SKEWED"]).write_text(str(time.time()))  # for the test to compare
    replace = os.replace

    def replace_and_date(source, target, **options):
        replace(source, target, **options)
        os.utime(target, (time.time(), time.time()))

    os.replace = replace_and_date


def sleep_beside_libfaketime() -> None:
    """End a sleep whose deadline passed before libfaketime looked: it answers EINVAL to that."""
    sleep = time.sleep

    def sleep_or_go_on(seconds: float) -> None:
        try:
            sleep(seconds)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    time.sleep = sleep_or_go_on


if "CONCEPTCAPS_SKEWED" in os.environ:
    sleep_beside_libfaketime()
if any("generate_audio.py" in argument for argument in sys.orig_argv):
    if "CONCEPTCAPS_FAULTS" in os.environ:
        break_this_job()
    if "CONCEPTCAPS_SKEWED" in os.environ:
        wear_the_nodes_clock()
