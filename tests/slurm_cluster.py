"""A real Slurm on one machine, for tests: munged, slurmctld and slurmd on loopback, everything under one folder, no
service of the machine touched. It needs root and the distribution's packages slurm-wlm and munge.

    reason = why_not()                  # one line where it cannot be started, None where it can
    with Cluster(folder) as cluster:    # started on entering, stopped on leaving, however that comes about
        cluster.run("sbatch", ...)
"""
import contextlib
import ctypes
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from jobs_support import processes_of, send, wait_for

PROGRAMS = ["munged", "slurmctld", "slurmd", "slurmstepd", "sbatch", "srun", "scontrol", "squeue", "scancel"]
WAYS = os.environ["PATH"] + ":/usr/sbin:/sbin"


def why_not():
    missing = [name for name in PROGRAMS if shutil.which(name, path=WAYS) is None]
    if missing:
        return f"no local Slurm: {', '.join(missing)} not found (packages slurm-wlm, munge)"
    if os.geteuid() != 0:
        return "no local Slurm: its daemons are started by root only"
    return None


def _die_with_parent():
    """Even if it is killed, and can stop nothing itself."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    def __init__(self, folder, cpus=4):
        self.folder = Path(folder)
        self.host = socket.gethostname().split(".")[0]
        self.cpus = cpus
        self.daemons, self.waits_since = {}, {}
        self.environment = dict(os.environ, SLURM_CONF=str(self.folder / "etc/slurm.conf"), PATH=WAYS)

    def __enter__(self):
        try:
            self._configure()
            # By force, because it wants a socket that everybody can reach, and a temporary folder is private.
            self._start("munged", "--foreground", "--force", f"--socket={self.folder}/run/munge.socket",
                        f"--key-file={self.folder}/munge/munge.key", f"--log-file={self.folder}/munge/munged.log",
                        f"--pid-file={self.folder}/munge/munged.pid", f"--seed-file={self.folder}/munge/munged.seed",
                        "--num-threads=2")
            wait_for("munged's socket", (self.folder / "run/munge.socket").exists, 20)
            self._start("slurmctld", "-D")
            wait_for("slurmctld", lambda: self.run("scontrol", "ping", check=False).returncode == 0)
            self.start_node()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _configure(self):
        for name in ("etc", "state", "spool", "log", "run", "munge", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o700)
        key = self.folder / "munge/munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        (self.folder / "etc/mpi.conf").write_text(f"PMIxCliTmpDirBase={self.folder}/tmp\n")
        devices = [self.folder / f"etc/gpu{number}" for number in range(2)]  # Slurm only looks whether they are there
        for device in devices:
            device.touch()
        (self.folder / "etc/gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
        (self.folder / "etc/slurm.conf").write_text(f"""
ClusterName=loop
SlurmctldHost={self.host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmdParameters=config_overrides
AuthType=auth/munge
AuthInfo=socket={self.folder}/run/munge.socket
SlurmctldPort={_free_port()}
SlurmdPort={_free_port()}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/run/slurmctld.pid
SlurmdPidFile={self.folder}/run/slurmd.pid
SlurmctldLogFile={self.folder}/log/slurmctld.log
SlurmdLogFile={self.folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=pmix
ReturnToService=2
SlurmdTimeout=5
BatchStartTimeout=2
KillWait=5
MinJobAge=3600
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=2
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=500
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={self.host} NodeAddr=127.0.0.1 CPUs={self.cpus} CoresPerSocket={self.cpus} RealMemory=8000 Gres=gpu:2
PartitionName=work Nodes={self.host} Default=YES MaxTime=01:00:00 State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes={self.host} MaxTime=01:00:00 State=UP PriorityTier=10 PreemptMode=OFF
""")

    def _start(self, name, *words):
        with open(self.folder / f"log/{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen([shutil.which(name, path=WAYS), *words], env=self.environment,
                                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                  start_new_session=True, preexec_fn=_die_with_parent)

    def start_node(self):
        self._start("slurmd", "-D", "-N", self.host)
        wait_for("the node", lambda: re.search(r"State=(IDLE|MIXED|ALLOCATED)[ +]", self.run(
            "scontrol", "show", "node", self.host, check=False).stdout + " ") is not None)

    def kill_node(self):
        """As if its power went: the daemon and everything that it started, at once, and nobody is told."""
        for pid in [self.daemons["slurmd"].pid, *self._of_jobs()]:
            send(pid, signal.SIGKILL)
        self.daemons.pop("slurmd").wait()

    def clear(self):
        """No job, and a node that takes some."""
        if "slurmd" not in self.daemons:
            self.start_node()
        self.run("scancel", "--user=root")
        wait_for("an empty queue", lambda: not self.run("squeue", "--noheader").stdout.strip(), 40)

    def stop(self):
        """Daemons in order, then whatever is left of their jobs."""
        for name in ("slurmd", "slurmctld", "munged"):
            daemon = self.daemons.pop(name, None)
            if daemon is None:
                continue
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self._of_jobs():
            send(pid, signal.SIGKILL)

    def _of_jobs(self):
        """Daemons of steps, and what runs inside jobs."""
        found = []
        for pid in processes_of(self.folder):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if (b"SLURM_JOB_ID=" in Path(f"/proc/{pid}/environ").read_bytes()
                        or b"slurmstepd" in Path(f"/proc/{pid}/cmdline").read_bytes()):
                    found.append(pid)
        return found

    # --- what a user does ---

    def run(self, *words, check=True, timeout=60, **more):
        return subprocess.run(words, env=more.pop("env", self.environment), text=True, capture_output=True, check=check,
                              timeout=timeout, **more)

    def job(self, number):
        """What scontrol knows of a job, as a dictionary; empty where it knows none."""
        shown = self.run("scontrol", "--oneliner", "show", "job", str(number), check=False).stdout
        return dict(re.findall(r"(\w+)=(\S*)", shown.splitlines()[0])) if shown.strip() else {}

    def state(self, number):
        return self.job(number).get("JobState", "UNKNOWN")

    def hurry(self):
        """Slurm lets a requeued job wait two minutes, in which nodes forget its last start. Called again and again,
        this makes it two seconds."""
        shown = self.run("scontrol", "--oneliner", "show", "job", check=False).stdout
        jobs = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown.splitlines()]
        waiting = {job["JobId"] for job in jobs if job.get("JobState") == "PENDING"
                   and (job["Restarts"] != "0" or job["Reason"] == "BeginTime")}
        self.waits_since = {number: self.waits_since.get(number, time.monotonic()) for number in waiting}
        for number, since in list(self.waits_since.items()):
            if time.monotonic() > since + 2:
                self.run("scontrol", "update", f"JobId={number}", "StartTime=now", check=False)
                del self.waits_since[number]

    def wait(self, number, *states, seconds=90):
        """Until the job is in one of these states (default: one it cannot leave)."""
        final = states or ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED")

        def reached():
            self.hurry()
            state = self.state(number)
            return state in final and state
        try:
            return wait_for(f"job {number} in {'/'.join(final)}", reached, seconds, step=0.2)
        except TimeoutError as error:
            job, log = self.job(number), ""
            with contextlib.suppress(OSError):
                log = Path(job.get("StdOut", "")).read_text(errors="replace")
            raise TimeoutError(f"{error}\n{job}\n{log}\n{self.run('squeue', '--steps', check=False).stdout}") from None
