"""jobs/ under a real Slurm on this machine (slurm_cluster.py): everything that may happen to a job in a night."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from jobs_support import (JOBS, Campaign, Pool, Skip, digest_in, expect, expect_equal, frozen, run_cases, seine,
                          selections_of, send, slow_words, wait_for, work_folder)
from slurm_cluster import Cluster, why_not

ONE, TWO, THREE = "2025-03-01", "2025-03-02", "2025-03-03"
RESOURCES = ["--ntasks=2", "--cpus-per-task=1", "--mem-per-cpu=500M", "--time=10"]
BATCH = 500


class Job:
    """jobs/select.sbatch for a selection that takes seconds, with an output of its own."""
    count = 0

    def __init__(self, *options, words=(), **environment):
        Job.count += 1
        self.out = PLACE / f"batch-{Job.count}.json"
        self.checkpoint, self.log = PLACE / f"batch-{Job.count}.json.checkpoint", PLACE / f"{Job.count}.log"
        self.options, self.words, self.environment = options, words, environment
        self.submit()

    def submit(self):
        self.number = CLUSTER.run(
            "sbatch", "--parsable", *RESOURCES, f"--output={self.log}", *self.options, str(JOBS / "select.sbatch"),
            *map(str, slow_words(PLACE / "pool", BATCH)), "--checkpoint-every", "0.02", "--out", str(self.out),
            *self.words,
            env={**CLUSTER.environment, **self.environment}).stdout.strip()

    def wait(self, *states):
        return CLUSTER.wait(self.number, *states)

    def has_checkpoint(self):
        wait_for(f"a checkpoint of job {self.number}", self.checkpoint.exists, step=0.01)

    def said(self):
        return self.log.read_text()

    def expect_done(self, restarts):
        expect_equal(self.wait(), "COMPLETED", self.said())
        expect_equal(CLUSTER.job(self.number)["Restarts"], str(restarts), "restarts")
        expect_equal(self.said().splitlines()[-1], f"digest {UNDISTURBED}", "last line")
        expect(self.out.exists(), "no output")
        expect(not self.checkpoint.exists(), "the checkpoint is still there")
        if restarts:
            expect("resuming from" in self.said(), "it did not resume:\n", self.said())


def finished_job_has_its_batch_and_its_digest():
    job = Job()
    job.expect_done(restarts=0)
    for part in ("seine 0.", "device cpu", "request: --pool", "2 ranks"):
        expect(part in job.said(), f"{part} is not in the log")


def output_that_exists_is_treated_as_by_seine():
    job = Job()
    job.expect_done(restarts=0)
    job.submit()  # the same request: written again
    job.expect_done(restarts=0)
    before = job.out.read_bytes()
    job.words = ["--seed", "1"]
    job.submit()
    expect_equal(job.wait(), "FAILED", job.said())
    expect_equal(CLUSTER.job(job.number)["ExitCode"], "73:0", "exit code")
    expect_equal(job.out.read_bytes(), before, "output")
    job.words = ["--seed", "1", "--force"]
    job.submit()
    expect_equal(job.wait(), "COMPLETED", job.said())
    expect_equal(json.loads(job.out.read_text())["seed"], 1, "seed of the output")


def time_limit_puts_the_job_back_and_it_resumes():
    job = Job("--time=1", "--signal=USR1@55")
    job.has_checkpoint()
    with frozen(PLACE) as ranks:  # or it would be done before Slurm looks at its limit, which it does twice a minute
        for pid in ranks:
            wait_for("the signal before the limit", lambda: _has_got(pid, signal.SIGUSR1), 50)
    job.expect_done(restarts=1)
    expect("ended early with 75" in job.said(), job.said())


def _has_got(pid, number):
    """Whether the signal waits for a process that was stopped, or has woken and ended it."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            return any(int(line.split()[1], 16) >> number - 1 & 1 for line in status if line.startswith("ShdPnd:"))
    except (FileNotFoundError, ProcessLookupError):
        return True


def node_that_fails_costs_the_rounds_since_the_checkpoint():
    job = Job()
    job.has_checkpoint()
    CLUSTER.kill_node()
    wait_for("nothing that survived the node", lambda: not selections_of(PLACE), 5)
    CLUSTER.start_node()
    job.expect_done(restarts=1)


def cancelled_job_keeps_its_checkpoint_and_goes_on_when_submitted_again():
    job = Job()
    job.has_checkpoint()
    CLUSTER.run("scancel", job.number)
    expect_equal(job.wait(), "CANCELLED", job.said())
    wait_for("the end of the step", lambda: not selections_of(PLACE))
    expect(job.checkpoint.exists() and not job.out.exists(), "checkpoint and no output")
    time.sleep(1)
    expect_equal(CLUSTER.state(job.number), "CANCELLED", "later")
    job.submit()
    job.expect_done(restarts=0)
    expect("resuming from" in job.said(), job.said())


def out_of_memory_is_a_failure_and_not_tried_for_ever():
    job = Job("--mem-per-cpu=5M")
    state = job.wait()
    expect(state in ("FAILED", "OUT_OF_MEMORY"), state, job.said())
    expect("memory" in job.said(), job.said())
    expect(not job.out.exists(), "there is an output")
    job.options = ()
    job.submit()
    expect_equal(job.wait(), "COMPLETED", job.said())


def preempted_job_resumes_when_the_urgent_one_is_done():
    job = Job()
    job.has_checkpoint()
    urgent = CLUSTER.run("sbatch", "--parsable", "--partition=urgent", f"--ntasks={CLUSTER.cpus}", "--mem-per-cpu=100M",
                         "--output=/dev/null", "--wrap", "sleep 1").stdout.strip()
    job.wait("PENDING")
    expect_equal(CLUSTER.wait(urgent), "COMPLETED", "urgent job")
    job.expect_done(restarts=1)


def killed_rank_is_a_restart_from_the_checkpoint():
    job = Job()
    job.has_checkpoint()
    with frozen(PLACE) as ranks:
        send(ranks[-1], signal.SIGKILL)
    job.expect_done(restarts=1)


def job_waits_for_a_predecessor_that_is_not_dead():
    job = Job()
    job.has_checkpoint()
    CLUSTER.run("scancel", "--signal=USR1", job.number)
    job.wait("PENDING")
    shutil.copy(PLACE / "undisturbed.json", job.out)  # a batch of the same request is no reason to give up
    other = subprocess.Popen([os.environ["SEINE_BIN"], "select", *map(str, slow_words(PLACE / "pool", BATCH)), "--out",
                              str(job.out), "--checkpoint", str(job.checkpoint)], stderr=subprocess.DEVNULL)
    wait_for("its lock", (PLACE / f".{job.out.name}.lock").exists, step=0.01)
    with frozen(PLACE):
        wait_for("the restart", lambda: CLUSTER.hurry() or "ended early with 73" in job.said(), step=0.2)
        other.kill()
    other.wait()
    job.expect_done(restarts=2)


def restarts_are_capped_and_a_done_job_gives_the_same_batch_again():
    job = Job(MOST_RESTARTS="0")
    job.has_checkpoint()
    CLUSTER.run("scancel", "--signal=USR1", job.number)
    expect_equal(job.wait(), "FAILED", job.said())
    expect("restarted 1 time;" in job.said(), job.said())
    expect(job.checkpoint.exists(), "the checkpoint is gone")
    job.environment = {}
    job.submit()
    job.expect_done(restarts=0)
    CLUSTER.run("scontrol", "requeue", job.number)  # as a node does that fails between the output and the end
    expect_equal(job.wait(), "COMPLETED", job.said())
    expect_equal(job.said().splitlines()[-1], f"digest {UNDISTURBED}", "last line")
    expect("start 2 on" in job.said() and not job.checkpoint.exists(), job.said())


def restart_holds_for_the_first_start_only():
    config = PLACE / "restart.toml"
    config.write_text("restart = true\n")
    for words in (["--restart"], ["--config", str(config)]):
        job = Job(words=words)
        job.has_checkpoint()
        CLUSTER.run("scancel", "--signal=USR1", job.number)
        job.expect_done(restarts=1)
        expect_equal(job.said().count("resuming from"), 1, job.said())
        expect("going on from" in job.said(), "it began anew:\n", job.said())


def restart_holds_until_it_was_heeded():
    launcher, before = PLACE / "late.sh", PLACE / f"batch-{Job.count + 1}.json.checkpoint"
    launcher.write_text(f'#!/bin/bash\n[[ -e {PLACE}/late ]] || {{ touch {PLACE}/late; exit 138; }}\n'
                        'exec srun --mpi=pmix --kill-on-bad-exit=0 --cpus-per-task=1 "$@"\n')
    launcher.chmod(0o755)
    before.touch()  # an empty one: 65, but for --restart
    job = Job(words=["--restart"], LAUNCH=str(launcher))
    expect_equal(job.checkpoint, before, "its checkpoint")
    expect_equal(job.wait(), "COMPLETED", job.said())
    expect("ended early with 138" in job.said(), job.said())
    expect_equal(job.said().splitlines()[-1], f"digest {UNDISTURBED}", "last line")
    expect_equal([path.name for path in PLACE.glob(f".{before.name}.job-*")], [], "what it has left")


def code_of_a_launcher_does_not_undo_a_batch():
    launcher = PLACE / "launcher.sh"
    launcher.write_text('#!/bin/bash\nsrun --mpi=pmix --kill-on-bad-exit=0 --cpus-per-task=1 "$@"\nexit 1\n')
    launcher.chmod(0o755)
    job = Job(LAUNCH=str(launcher))
    job.expect_done(restarts=0)
    expect("its launcher ended with 1" in job.said(), job.said())


def foreign_output_is_not_the_batch_of_a_restart():
    job = Job()
    job.has_checkpoint()
    CLUSTER.run("scancel", "--signal=USR1", job.number)
    job.wait("PENDING")
    job.out.write_text("precious\n")
    expect_equal(job.wait(), "FAILED", job.said())
    expect_equal(CLUSTER.job(job.number)["ExitCode"], "73:0", job.said())
    expect_equal(CLUSTER.job(job.number)["Restarts"], "1", "restarts")
    expect("done:" not in job.said(), job.said())
    expect_equal(job.out.read_text(), "precious\n", "output")
    job.out.unlink()
    job.submit()  # the checkpoint is kept
    job.expect_done(restarts=0)
    expect_equal(job.said().count("resuming from"), 2, job.said())


def gpu_form_asks_for_a_gpu_a_rank():
    out, log = PLACE / "gpu.json", PLACE / "gpu.log"
    words = [str(JOBS / "select.sbatch"), *map(str, slow_words(PLACE / "pool", BATCH)), "--out", str(out)]
    said = CLUSTER.run(*words, env={**CLUSTER.environment, "DEVICE": "cuda",
                                    "SUBMIT": " ".join([*RESOURCES, f"--output={log}"])}).stdout
    job = said.split()[-1]  # Submitted batch job N
    CLUSTER.wait(job)
    shown = CLUSTER.run("scontrol", "show", "job", job).stdout
    expect("gres/gpu=2" in shown or "gres:gpu:1" in shown, shown)
    expect("2 ranks, device cuda" in log.read_text(), log.read_text())
    if not out.exists():  # there is no such device, and the job says so
        expect_equal(CLUSTER.job(job)["ExitCode"], "69:0", log.read_text())


def wrong_request_is_final():
    job = Job(words=["--set", "nothing=1"])
    expect_equal(job.wait(), "FAILED", job.said())
    expect_equal(CLUSTER.job(job.number)["ExitCode"], "64:0", "exit code")
    expect_equal(CLUSTER.job(job.number)["Restarts"], "0", "restarts")


def slurm_campaign(name):
    return Campaign(PLACE, name, by="slurm",
                    run='ranks = 2\npoll = 0.3\nsbatch = ["--mem-per-cpu=500M", "--time=10"]',
                    select=f'strategy = "facility_location"\nbatch = {BATCH}\ncheckpoint-every = 0.2\n'
                           'certificate = "off"')


def environment():
    return {**CLUSTER.environment, "PYTHON": sys.executable}


def nights_go_through_slurm_and_a_killed_one_waits_for_its_job():
    one = slurm_campaign("plankton")
    one.nightly("--today", ONE, says="submitted job", environment=environment())
    expect_equal(one.batch(ONE)["digest"], UNDISTURBED, "digest")
    one.nightly("--today", ONE, says="nothing to do", environment=environment())
    first = one.start("--today", TWO, environment=environment())
    wait_for("a checkpoint", one.checkpoint(TWO).exists, step=0.01)
    with frozen(one.folder):
        first.kill()
        first.wait()
        second = one.start("--today", TWO, environment=environment())
        for line in second.stderr:
            if "which an earlier start submitted" in line:
                break
    expect_equal(second.wait(60), 0, second.stderr.read())
    expect_equal(one.events()[-1]["starts"], 1, "jobs of the second night")
    one.expect_sound([ONE, TWO])


def cancelled_night_is_submitted_again_by_the_next_start():
    one = slurm_campaign("krill")
    first = one.start("--today", ONE, environment=environment())
    wait_for("a checkpoint", one.checkpoint(ONE).exists, step=0.01)
    CLUSTER.run("scancel", f"--name=seine-krill-{ONE}")
    _, err = first.communicate(timeout=60)
    expect_equal(first.returncode, 75, err)
    expect("was cancelled" in err, err)
    one.nightly("--today", ONE, environment=environment())
    expect_equal(one.events()[-1]["starts"], 2, "jobs")
    expect("resuming from" in (one.folder / "nights" / ONE / "log").read_text(), "it did not resume")
    expect_equal(one.batch(ONE)["digest"], UNDISTURBED, "digest")
    one.expect_sound([ONE])


def array_of_two_campaigns():
    both = [Campaign(PLACE, f"campaign-{i}", run='launch = ["srun", "--mpi=pmix", "--ntasks=1"]\n'
                     'check = ["srun", "--mpi=pmix", "--ntasks=1"]',
                     select=f'strategy = "badge"\nbatch = 10\nseed = {i}')
            for i in range(2)]
    script = f"exec {JOBS}/nightly.sh {PLACE}/campaign-$SLURM_ARRAY_TASK_ID.toml --today {TWO}"
    array = CLUSTER.run("sbatch", "--parsable", "--array=0-1", "--ntasks=1", f"--output={PLACE}/array-%a.log", "--wrap",
                        script, env=environment()).stdout.strip()
    for i, one in enumerate(both):
        said = PLACE / f"array-{i}.log"
        expect_equal(CLUSTER.wait(f"{array}_{i}"), "COMPLETED", said.exists() and said.read_text())
        one.expect_sound([ONE, TWO])
    expect(both[0].batch(ONE)["digest"] != both[1].batch(ONE)["digest"], "both campaigns chose the same")


def scaling_job_compares_what_all_ranks_choose():
    out = PLACE / "scaling"
    job = CLUSTER.run("sbatch", "--parsable", *RESOURCES, f"--output={PLACE}/scaling.log", str(JOBS / "scaling.sbatch"),
                      env={**CLUSTER.environment, "PYTHON": sys.executable, "OUT": str(out), "ROWS": "1000", "DIM": "8",
                           "BATCH": "20", "REPEAT": "1"}).stdout.strip()
    said = PLACE / "scaling.log"
    expect_equal(CLUSTER.wait(job), "COMPLETED", said.exists() and said.read_text())
    expect("6 runs, and all of a pool agree" in said.read_text(), said.read_text())
    expect_equal((out / "scaling.md").read_text().count("| strong |"), 2, "lines of the strong series")
    one = out / "runs/check-2-1-1.json"
    one.write_text(one.read_text().replace('"digest": "', '"digest": "f'))
    judged = subprocess.run([sys.executable, JOBS.parent / "tools/scaling.py", out], capture_output=True, text=True)
    expect(judged.returncode == 1 and "DIGESTS DIFFER" in judged.stderr, judged.stderr)


CASES = [finished_job_has_its_batch_and_its_digest, output_that_exists_is_treated_as_by_seine,
         time_limit_puts_the_job_back_and_it_resumes,
         node_that_fails_costs_the_rounds_since_the_checkpoint,
         cancelled_job_keeps_its_checkpoint_and_goes_on_when_submitted_again,
         out_of_memory_is_a_failure_and_not_tried_for_ever, preempted_job_resumes_when_the_urgent_one_is_done,
         killed_rank_is_a_restart_from_the_checkpoint, job_waits_for_a_predecessor_that_is_not_dead,
         restarts_are_capped_and_a_done_job_gives_the_same_batch_again,
         restart_holds_for_the_first_start_only, restart_holds_until_it_was_heeded,
         code_of_a_launcher_does_not_undo_a_batch, foreign_output_is_not_the_batch_of_a_restart,
         wrong_request_is_final, gpu_form_asks_for_a_gpu_a_rank, nights_go_through_slurm_and_a_killed_one_waits_for_its_job,
         cancelled_night_is_submitted_again_by_the_next_start, array_of_two_campaigns,
         scaling_job_compares_what_all_ranks_choose]


def skip():
    raise Skip(why_not())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a time limit of ctest must not leave daemons behind
    if why_not():
        skip.__name__ = "every_case"
        sys.exit(run_cases("Slurm", [skip]))
    with work_folder() as PLACE:
        Pool(PLACE / "pool", 16000).grow(4)
        UNDISTURBED = digest_in(
            seine("select", *slow_words(PLACE / "pool", BATCH), "--out", PLACE / "undisturbed.json"))
        with Cluster(PLACE / "slurm") as CLUSTER:
            CLUSTER.environment["SEINE"] = os.environ["SEINE_BIN"]
            result = run_cases("Slurm", CASES, after=CLUSTER.clear)
    sys.exit(result)
