"""What Slurm is asked, and what it answers."""
import os
import re
import subprocess
import time

from files import UNAVAILABLE, Stop

NOT_ANSWERING = ("Unable to contact", "onnection refused", "timed out")


def ask(*words, must=True, **variables):
    """What a command of Slurm prints. A controller that is down for a while is waited for; one that never answers is no
    reason to think that a job has ended."""
    for wait in (5, 15, 30, 60, None):
        try:
            done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **variables})
        except FileNotFoundError:
            raise Stop(UNAVAILABLE, f"{words[0]}: no such program in PATH") from None
        if done.returncode == 0:
            return done.stdout
        if not must and "Invalid job id" in done.stderr:
            return ""
        if wait is None or not any(sign in done.stderr for sign in NOT_ANSWERING):
            break
        time.sleep(wait)
    raise Stop(UNAVAILABLE, f"{words[0]} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")


def job_in_queue(name):
    """Its number; None where no job of mine has this name."""
    jobs = ask("squeue", "--noheader", f"--user={os.getuid()}", f"--name={name}", "--format=%A").split()
    return jobs[0] if jobs else None


def submit(*words, **variables):
    """The number of the new job."""
    return ask("sbatch", "--parsable", *words, **variables).strip().split(";")[0]


def wait_for_job(job, poll):
    """Until it has left the queue; requeued and pending jobs are still in it."""
    while ask("squeue", "--noheader", f"--jobs={job}", "--format=%T", must=False).strip():
        time.sleep(poll)


def end_of(job):
    """State and exit code of a job that has left the queue."""
    shown = dict(re.findall(r"(\w+)=(\S*)", ask("scontrol", "--oneliner", "show", "job", job, must=False)))
    return shown.get("JobState", "forgotten"), int(shown.get("ExitCode", "1:0").split(":")[0])
