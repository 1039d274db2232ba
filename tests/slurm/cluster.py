"""A real Slurm on the loopback interface: one CPU node, and two nodes with two GPUs each.

Everything lives in one directory; every daemon listens on 127.0.0.1 only, on ports that the system
hands out, so that two clusters do not collide. Needs Debian's slurmctld, slurmd, slurm-client,
munge and slurm-wlm-basic-plugins, and neither systemd nor cgroups nor a database.

The GPUs are character devices that stand in: what Slurm allocates and what it puts into
CUDA_VISIBLE_DEVICES is real, the devices compute nothing.
"""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

NODES = {"cpu1": 0, "gpu1": 2, "gpu2": 2}  # node -> GPUs
DEVICES = {"gpu1": "/dev/null,/dev/zero", "gpu2": "/dev/full,/dev/random"}
DAEMONS = {name: f"/usr/sbin/{name}" for name in ("munged", "slurmctld", "slurmd")}

CONF = """\
ClusterName=conceptcaps
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# cred_expire bounds how long a requeued job is held back (120 s otherwise)
AuthInfo=socket={dir}/run/munge.sock,cred_expire=5
# listen on the configured addresses, not on all
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={dir}/state
SlurmctldPidFile={dir}/run/slurmctld.pid
SlurmdPidFile={dir}/run/slurmd.%n.pid
SlurmdSpoolDir={dir}/spool/%n
SlurmctldLogFile={dir}/log/slurmctld.log
SlurmdLogFile={dir}/log/slurmd.%n.log
# linuxproc leaves processes of cancelled jobs behind, now and then
ProctrackType=proctrack/pgid
TaskPlugin=task/none
TaskProlog={dir}/bin/prolog
TaskEpilog={dir}/bin/epilog
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
MailProg=/bin/true
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=200
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=200000,batch_sched_delay=0
# nodes are as large as this file says, whatever the machine is
SlurmdParameters=config_overrides
ReturnToService=2
# finished jobs stay in squeue and scontrol for a whole test session
MinJobAge=7200
KillWait=3
SlurmctldTimeout=20
SlurmdTimeout=10
JobRequeue=1
AccountingStorageType=accounting_storage/none
PartitionName=cpu Nodes=cpu1 Default=YES MaxTime=120 State=UP
PartitionName=gpu Nodes=gpu1,gpu2 MaxTime=120 State=UP
"""

# What the job itself sees in the environment that Slurm gave it, in its batch script and its step.
TRACE = """\
#!/bin/sh
where="${{SLURM_STEP_ID:--}} $SLURMD_NODENAME ${{CUDA_VISIBLE_DEVICES:--}}"
echo "{event} $(date +%s.%N) $SLURM_JOB_ID $where" >> {dir}/log/trace.txt
{more}
"""


@dataclass(frozen=True)
class Span:
    """What one step of a job had, and when (seconds since the epoch; end is inf while it runs)."""

    job: int
    step: str
    node: str
    devices: tuple[int, ...]
    start: float
    end: float


def missing() -> str | None:
    """Say why no cluster can be started here, or None."""
    lost = [path for path in DAEMONS.values() if not Path(path).exists()]
    lost += [name for name in ("sbatch", "srun", "squeue", "scontrol") if not shutil.which(name)]
    if lost:
        return f"no Slurm here ({', '.join(lost)} missing): see CONTRIBUTING.md, 'On a cluster'"
    return None


class Cluster:
    """Start it, break it, mend it, stop it. No call blocks for longer than its time limit."""

    def __init__(self, directory: Path):
        """Write the configuration of a cluster into `directory`; nothing is started."""
        self.directory = directory.resolve()
        for name in ("run", "state", "log", "bin", *(f"spool/{node}" for node in NODES)):
            (self.directory / name).mkdir(parents=True)
        with ExitStack() as stack:  # all held at once, so that they differ
            sockets = [stack.enter_context(socket.socket()) for _ in range(1 + len(NODES))]
            for listening in sockets:
                listening.bind(("127.0.0.1", 0))
            ctld_port, *ports = [listening.getsockname()[1] for listening in sockets]
        lines = [CONF.format(dir=self.directory, ctld_port=ctld_port, user=getpass.getuser())]
        for (node, gpus), port in zip(NODES.items(), ports, strict=True):
            gres = f" Gres=gpu:h100:{gpus}" if gpus else ""
            lines.append(
                f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=16 "
                f"RealMemory=16000{gres}\n"
            )
        self.conf.write_text("".join(lines))
        (self.directory / "gres.conf").write_text(
            "".join(f"NodeName={n} Name=gpu Type=h100 File={f}\n" for n, f in DEVICES.items())
        )
        # The executor's job step drops SLURM_CONF from the environment before it calls srun.
        self._script("srun", f'SLURM_CONF={self.conf} exec {shutil.which("srun")} "$@"')
        self.set_prolog("")
        key = self.directory / "run/munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))

    @property
    def conf(self) -> Path:
        return self.directory / "slurm.conf"

    def environment(self) -> dict[str, str]:
        """Return the variables under which Slurm's commands reach this cluster."""
        path = f"{self.directory / 'bin'}:{os.environ['PATH']}"
        return {"SLURM_CONF": str(self.conf), "PATH": path}

    def _script(self, name: str, text: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def set_prolog(self, more: str, epilog: str = "") -> None:
        """Let every task run more shell lines first; `export A=b` on stdout sets its variables."""
        for name, event, lines in (("prolog", "start", more), ("epilog", "end", epilog)):
            self._script(name, TRACE.format(event=event, dir=self.directory, more=lines))

    def start(self) -> None:
        """Start all daemons and wait until every node is idle."""
        run = self.directory / "run"
        self._daemon(
            "munged",
            "--force",
            f"--key-file={run / 'munge.key'}",
            f"--socket={run / 'munge.sock'}",
            f"--pid-file={run / 'munged.pid'}",
            f"--log-file={self.directory / 'log/munged.log'}",
            f"--seed-file={run / 'munge.seed'}",
            "--num-threads=2",
        )
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_idle()

    def start_controller(self) -> None:
        """Start slurmctld; it goes on with the jobs that it had."""
        self._daemon("slurmctld")

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self._daemon("slurmd", "-N", node)

    def _daemon(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [DAEMONS[name], *arguments],
            env=os.environ | self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=True,
        )

    def wait_idle(self, seconds: float = 60) -> None:
        """Wait until all nodes are idle."""

        def idle():
            listed = self.ask("sinfo", "-h", "-N", "-t", "idle", "-o", "%N %T", check=False)
            names = {line.split()[0] for line in listed.splitlines() if "*" not in line}
            return names == set(NODES)

        self.wait(idle, seconds, "all nodes are idle")

    def wait(self, condition, seconds: float, what: str):
        """Wait until `condition()` is true and return what it gave."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                log = (self.directory / "log/slurmctld.log").read_text()[-2000:]
                raise TimeoutError(f"not within {seconds} s: {what}\n{log}")
            time.sleep(0.2)
        return found

    def ask(self, *command: str, check: bool = True) -> str:
        """Return what one of Slurm's commands prints; '' if it does not answer in ten seconds."""
        try:
            done = subprocess.run(
                command,
                env=os.environ | self.environment(),
                capture_output=True,
                text=True,
                timeout=10,
            )
        except subprocess.TimeoutExpired:
            return ""
        if check and done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Return every job's record, finished ones too, with its rule and wildcards as `Rule`."""
        records = []
        for line in self.ask("scontrol", "-o", "show", "jobs", check=False).splitlines():
            record = dict(re.findall(r"(\w+)=(\S*)", line))
            if "JobId" in record:
                rule = re.match(r"rule_(.*?)(?:_wildcards_(.*))?$", record.get("Comment", ""))
                record["Rule"] = rule[1] if rule else ""
                record["Wildcards"] = (rule[2] or "") if rule else ""
                records.append(record)
        return records

    def running(self, rule: str) -> list[dict[str, str]]:
        """Return the records of a rule's running jobs."""
        return [j for j in self.jobs() if j["Rule"] == rule and j["JobState"] == "RUNNING"]

    def spans(self) -> list[Span]:
        """Return when which step of a job had which devices of which node, by its own record."""
        path = self.directory / "log/trace.txt"
        begun, spans = {}, []
        for line in path.read_text().splitlines() if path.exists() else []:
            event, when, job, step, node, devices = line.split()
            key = (int(job), step, node)
            if event == "start":
                begun[key] = (float(when), devices)
            elif key in begun:
                spans.append(_span(key, *begun.pop(key), end=float(when)))
        return spans + [_span(key, *value, end=float("inf")) for key, value in begun.items()]

    def crash(self, node: str) -> None:
        """Do to a node what losing its power does: its slurmd and all its jobs die at once."""
        pid = self._pid(f"slurmd.{node}")
        held = {j["JobId"] for j in self.jobs() if j["NodeList"] == node}
        os.kill(pid, signal.SIGKILL)
        self._pid_file(f"slurmd.{node}").unlink()
        for process, command in _commands():
            step = re.match(r"slurmstepd: \[(\d+)\.", command)
            if step and step[1] in held:
                _kill_tree(process)

    def stop_controller(self) -> None:
        """Kill slurmctld as a crash would."""
        os.kill(self._pid("slurmctld"), signal.SIGKILL)
        self._pid_file("slurmctld").unlink()

    def stop(self) -> None:
        """Cancel all jobs, stop all daemons, and end every process that was left behind."""
        if self._pid("slurmctld"):
            self.ask("scancel", "-u", getpass.getuser(), check=False)
            with suppress(TimeoutError):
                self.wait(lambda: not self.ask("squeue", "-h", check=False).strip(), 15, "no jobs")
        for name in (*(f"slurmd.{node}" for node in NODES), "slurmctld", "munged"):
            if pid := self._pid(name):
                _end(pid)
        self.sweep()

    def sweep(self) -> list[int]:
        """Kill the processes that still carry this cluster's SLURM_CONF, and return their ids."""
        mark = f"SLURM_CONF={self.conf}".encode()
        found = []
        for process, _ in _commands():
            with suppress(OSError):
                environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                if mark in environment and process != os.getpid():
                    os.kill(process, signal.SIGKILL)
                    found.append(process)
        return found

    def _pid_file(self, name: str) -> Path:
        return self.directory / f"run/{name}.pid"

    def _pid(self, name: str) -> int | None:
        path = self._pid_file(name)
        return int(path.read_text()) if path.exists() and path.read_text().strip() else None


def _span(key, start, devices, end) -> Span:
    numbers = () if devices == "-" else tuple(int(d) for d in devices.split(","))
    return Span(*key, numbers, start, end)


def _commands() -> list[tuple[int, str]]:
    """Return (pid, command line) of every process."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append((int(path.parent.name), path.read_text().replace("\0", " ")))
    return found


def _kill_tree(pid: int) -> None:
    """Kill a process and all its descendants, children first."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                _kill_tree(int(child))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _end(pid: int, seconds: float = 5) -> None:
    """End a process: ask first, then kill."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            if _is_zombie(pid):
                return
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)


def _is_zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True
