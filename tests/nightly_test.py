"""jobs/nightly.sh without Slurm: what an operator meets in the life of a campaign, each as a case."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "jobs", "nightly"))

from jobs_support import (JOBS, Campaign, Pool, Skip, expect, expect_equal, frozen, run_cases, seine, selections_of,
                          send, wait_for, work_folder)
from night import ASKS_FOR_GPUS, digest_of  # noqa: E402

ONE, TWO, THREE, FOUR = "2025-03-01", "2025-03-02", "2025-03-03", "2025-03-04"
SLOW = 'strategy = "facility_location"\nbatch = 500\ncheckpoint-every = 0.02\ncertificate = "off"'
TWO_RANKS = 'launch = ["mpirun", "-n", "2", "--oversubscribe"]'


@contextlib.contextmanager
def campaign(rows=400, shards=4, ids="string", **more):
    with work_folder() as folder:
        pool = Pool(folder / "pool", rows, shards, ids=ids).grow(shards)
        one = Campaign(folder, **more)
        one.pool = pool
        yield one


def digest_is_that_of_seine():
    with work_folder() as folder:
        Pool(folder / "pool", 3000, 1).grow(1)
        for batch in (1, 2, 3, 4, 5, 8, 15, 16, 17, 23, 29, 30, 31, 32, 128, 129, 1000):
            seine("select", "--pool", f"{folder}/pool/*.h5", "--strategy", "random", "--batch", batch, "--force",
                  "--out", folder / "batch.json")
            found = json.loads((folder / "batch.json").read_text())
            expect_equal(digest_of(found["rows"]), found["digest"], f"{batch} rows")


def one_night_and_a_second_start():
    with campaign(run=TWO_RANKS) as one:
        one.nightly("--today", ONE, says="published 10 ids")
        one.expect_sound([ONE])
        before = (one.ledger.read_bytes(), os.stat(one.published / ONE).st_mtime_ns)
        one.nightly("--today", ONE, says="nothing to do")
        expect_equal((one.ledger.read_bytes(), os.stat(one.published / ONE).st_mtime_ns), before, "second start")
        summary = (one.published / ONE / "summary.md").read_text()
        for part in ("10 samples to label", "badge", "400 rows in 4 files", one.batch(ONE)["digest"], "2 ranks"):
            expect(part in summary, f"{part} is not in the summary")
        expect(ONE in one.nightly("--today", ONE, "--status"), "status")
        one.nightly("--today", TWO, "--status", code=75)


def missed_nights_are_caught_up_oldest_first():
    with campaign(catch_up=2) as one:
        one.nightly("--today", ONE)
        one.nightly("--today", "2025-03-05", says="1 night, 2025-03-02 has no batch")
        one.expect_sound([ONE, THREE, FOUR, "2025-03-05"])
        expect_equal([event["night"] for event in one.events()], [ONE, THREE, FOUR, "2025-03-05"], "order")
        one.nightly("--night", TWO)
        one.expect_sound([ONE, TWO, THREE, FOUR, "2025-03-05"])


def labelled_ids_come_back():
    with campaign() as one:
        one.nightly("--today", TWO)
        first, second = one.batch(ONE)["ids"], one.batch(TWO)["ids"]
        (one.labels / "a.csv").write_text("id,label\n" + "".join(f"{each},3\n" for each in first[:6]))
        (one.labels / "b.txt").write_text("\n".join(first[6:8] + second[:1]) + "\n")
        one.nightly("--today", THREE, says="9 labelled, 11 pending")
        frozen = one.folder / "nights" / THREE
        expect_equal((frozen / "pending.csv").read_text().split()[1:], first[8:] + second[1:], "pending")
        expect_equal((frozen / "labelled.csv").read_text().split()[1:], first[:8] + second[:1], "labelled")
        expect_equal(one.batch(THREE)["candidates"], 400 - 20, "candidates")
        one.expect_sound([ONE, TWO, THREE])
        (one.labels / "c.csv").write_text("name\nx\n")
        one.nightly("--today", FOUR, code=65, says="c.csv")
        (one.labels / "c.csv").unlink()
        for text in ('{"ids": [1.5]}', '{"ids": [null]}', '{"ids": "s0"}'):
            (one.labels / "d.json").write_text(text)
            one.nightly("--today", FOUR, code=65, says="not a list of whole numbers and texts")


def whole_numbers_come_back_however_they_are_written():
    with campaign(ids="int") as one:
        one.nightly("--today", ONE)
        first = one.batch(ONE)["ids"]
        (one.labels / "a.csv").write_text("id\n" + "".join(f"+00{each}\n" for each in first[:4]))
        one.nightly("--today", TWO, says="4 labelled, 6 pending")
        one.expect_sound([ONE, TWO])


def pool_grows_while_the_campaign_runs():
    with work_folder() as folder:
        pool = Pool(folder / "pool", 400, 4)
        one = Campaign(folder)
        for shards, night in enumerate((ONE, TWO, THREE, FOUR), 1):
            pool.grow(shards)
            one.nightly("--today", night)
        expect_equal([event["pool_rows"] for event in one.events()], [100, 200, 300, 400], "rows of the pool")
        one.expect_sound([ONE, TWO, THREE, FOUR])


def rows_without_ids_may_only_be_added_at_the_end():
    with work_folder() as folder:
        pool = Pool(folder / "pool", 400, 4, ids="none")
        one = Campaign(folder)
        pool.grow(2)
        one.nightly("--today", ONE)
        pool.grow(3)
        one.nightly("--today", TWO)
        os.rename(pool.shards[3], folder / "pool/a.h5")
        one.nightly("--today", THREE, code=65, says="a.h5 is now where")
        os.rename(folder / "pool/a.h5", pool.shards[3])
        first = pool.folder / pool.shards[0].name
        os.rename(first, folder / "aside")
        Pool(folder / "longer", 150, 1, ids="none").grow(1)
        os.rename(folder / "longer" / os.listdir(folder / "longer")[0], first)
        one.nightly("--today", THREE, code=65, says="bytes, and has")
        os.replace(folder / "aside", first)
        one.write(run='launch = ["false"]')  # begun, and then the pool changes
        one.nightly("--today", THREE, code=69)
        shutil.copy(first, folder / "aside")
        with open(first, "ab") as file:
            file.write(bytes(8))
        one.write(run='launch = ["env"]')
        one.nightly("--today", THREE, code=65, says="files of a pool without ids have changed")
        os.replace(folder / "aside", first)
        one.write(run='launch = ["false"]')
        one.nightly("--today", THREE, code=69)
        os.rename(pool.shards[3], folder / "pool/a.h5")
        one.write(run='launch = ["env"]')
        one.nightly("--today", THREE, code=65, says="a.h5 is now where")
        os.rename(folder / "pool/a.h5", pool.shards[3])
        one.nightly("--today", THREE)
        one.expect_sound([ONE, TWO, THREE])


def files_of_rows_with_ids_may_come_and_go():
    try:
        import h5py
    except ImportError as error:
        raise Skip(str(error)) from None
    with work_folder() as folder:
        pool = Pool(folder / "pool", 400, 4, ids="none")
        for k, shard in enumerate(pool.shards):  # the numbers that rows have without ids
            with h5py.File(shard, "a") as file:
                file["ids"] = range(100 * k, 100 * k + 100)
        one = Campaign(folder)
        pool.grow(2)
        one.nightly("--today", ONE)
        os.rename(pool.shards[3], folder / "pool/a.h5")
        one.nightly("--today", TWO)
        os.remove(folder / "pool" / pool.shards[0].name)
        one.nightly("--today", THREE, says=f"has lost 1 file since {TWO}")
        expect("files that it has lost" in (one.published / THREE / "summary.md").read_text(), "summary")
        expect_equal([event["pool_rows"] for event in one.events()], [200, 300, 200], "rows of the pool")


def prologue_that_fails_is_named():
    with campaign() as one:
        good = one.base / "prologue"
        good.write_text('export SOMEWHERE="/opt/lib:$THAT_IS_NOT_SET"\n')
        one.nightly("--today", ONE, "--status", code=75,
                    environment={**os.environ, "PYTHON": sys.executable, "PROLOGUE": str(good)})
        one.nightly("--today", ONE, code=78, says="PROLOGUE=/none failed", environment={**os.environ, "PROLOGUE": "/none"})


def clock_that_is_wrong_decides_nothing():
    if "SEINE_WRONG_CLOCK" not in os.environ:
        raise Skip("SEINE_WRONG_CLOCK is not set: sanitizers cannot be preloaded")

    def by(days):
        return {**os.environ, "PYTHON": sys.executable, "LD_PRELOAD": os.environ["SEINE_WRONG_CLOCK"],
                "SEINE_CLOCK_OFFSET": str(86400 * days)}
    with campaign() as one:
        one.nightly("--today", ONE)
        one.nightly()  # the real today, and the nights before it
        nights = one.nights()
        for days, says in ((-40, "but the ledger was written to at"), (40, "nights from ")):
            one.nightly(environment=by(days), code=78, says=says)
            expect_equal(one.nights(), nights, "nights")
        one.nightly("--status", environment=by(40), code=78, says="would get no batch")
        one.nightly(environment=by(1))  # within what catch_up makes up for
        expect_equal(len(one.nights()), len(nights) + 1, "nights")
        one.nightly(environment=by(-40), code=78)
        one.nightly("--today", nights[-1], environment=by(-40), says="nothing to do")  # somebody says what day it is
        one.expect_sound(one.nights())


def repaired_ledger_keeps_its_order_whatever_the_clock_said():
    if "SEINE_WRONG_CLOCK" not in os.environ:
        raise Skip("SEINE_WRONG_CLOCK is not set: sanitizers cannot be preloaded")
    with campaign() as one:
        one.nightly("--today", ONE)
        one.nightly("--withdraw", ONE, "--why", "a clock that runs behind", environment={
            **os.environ, "PYTHON": sys.executable, "LD_PRELOAD": os.environ["SEINE_WRONG_CLOCK"],
            "SEINE_CLOCK_OFFSET": "-86400"})
        one.nightly("--repair", "--today", ONE, says="has 2 lines again")
        one.expect_sound([])


def wrong_words_are_usage():
    for words in ((), ("x.toml", "--nonsense"), ("x.toml", "--night", "yesterday"), ("x.toml", "--skip")):
        done = subprocess.run([JOBS / "nightly.sh", *words], text=True, capture_output=True,
                              env={**os.environ, "PYTHON": sys.executable})
        expect_equal(done.returncode, 64, done.stderr)
        expect("usage: nightly.sh" in done.stderr and "(exit 64)" in done.stderr, done.stderr)
    done = subprocess.run([JOBS / "nightly.sh", "x.toml"], text=True, capture_output=True,
                          env={**os.environ, "PYTHON": "/bin/false"})
    expect(done.returncode == 78 and "PYTHON=/bin/false" in done.stderr, done.stderr)


def options_that_ask_for_gpus_are_known():
    for options, asks in (("--gpus-per-task=1", True), ("--gpus 2", True), ("-G 2", True), ("--mem=1G --gres=gpu:2", True),
                          ("--gres lustre:1,gpu:a100:1", True), ("--tres-per-task=gres/gpu:1", True), ("", False),
                          ("--partition=HPC-GPU", False), ("--account=X-G", False), ("--gres=lustre:1", False),
                          ("--gpu-bind=closest --gres-flags=enforce-binding", False)):
        expect_equal(bool(ASKS_FOR_GPUS.search(options)), asks, options)


def slurm_that_never_answers_is_no_end_of_a_job():
    with campaign(by="slurm", run="poll = 0.1") as one:
        tools = one.base / "tools"
        tools.mkdir()
        environment = {**os.environ, "PYTHON": sys.executable, "PATH": f"{tools}:/usr/bin:/bin"}

        def answer(name, script):
            (tools / name).write_text("#!/bin/sh\n" + script + "\n")
            (tools / name).chmod(0o755)

        def night(says):
            one.nightly("--today", ONE, code=69, says=says, environment=environment)
            expect_equal(one.nights(), [], "published nights")
        answer("squeue", "echo 'squeue: error: no such cluster' >&2; exit 1")
        night("squeue ended with 1: ['squeue: error: no such cluster']")
        # It knows of no job before one is submitted, and then nothing at all.
        answer("squeue", 'case "$*" in *--name*) exit 0;; esac; echo broken >&2; exit 1')
        answer("sbatch", f"echo 7 | tee -a {one.base}/submitted")
        night("squeue ended with 1: ['broken']")
        expect_equal((one.base / "submitted").read_text(), "7\n", "submitted once")


@contextlib.contextmanager
def half_way(one):
    """The ranks of a selection that has left a checkpoint, stopped meanwhile."""
    wait_for("a checkpoint", one.checkpoint(ONE).exists, step=0.01)
    with frozen(one.folder) as ranks:
        yield ranks


def second_start_at_once_is_told_who_holds_the_lock():
    with campaign(rows=16000, select=SLOW) as one:
        first = one.start("--today", ONE)
        with frozen(one.folder):
            one.nightly("--today", ONE, code=75, says=f"in use by process {first.pid} on ")
        expect_equal(first.wait(60), 0, "the first start")
        one.expect_sound([ONE])


def killed_night_goes_on_to_the_same_batch():
    with campaign(rows=16000, select=SLOW) as one:
        one.nightly("--today", ONE)
        undisturbed = one.batch(ONE)["digest"]
        one.nightly("--withdraw", ONE, "--why", "to be made again")
        first = one.start("--night", ONE)
        with half_way(one) as ranks:
            first.kill()  # its selection lives on, and the lock with it
            one.nightly("--night", ONE, code=75, says="in use")
            for pid in ranks:
                send(pid, signal.SIGKILL)
        wait_for("the end of the selection", lambda: not selections_of(one.folder))
        expect(one.checkpoint(ONE).exists(), "the checkpoint is gone")
        one.nightly("--night", ONE, says="goes on where it stopped")
        expect_equal(one.batch(ONE)["digest"], undisturbed, "digest")
        expect_equal(one.events()[-1]["starts"], 2, "starts")
        one.expect_sound([ONE])


def interrupted_night_keeps_its_checkpoint():
    with campaign(rows=16000, select=SLOW, run=TWO_RANKS) as one:
        first = one.start("--today", ONE)
        with half_way(one):
            first.terminate()
        _, err = first.communicate(timeout=60)
        expect_equal(first.returncode, 75, err)
        expect(not selections_of(one.folder), "the selection goes on")
        expect(one.checkpoint(ONE).exists(), "the checkpoint is gone")
        one.nightly("--today", ONE, says="goes on where it stopped")
        one.expect_sound([ONE])


def killed_rank_is_started_again_at_once():
    with campaign(rows=16000, select=SLOW, run=TWO_RANKS) as one:
        first = one.start("--today", ONE)
        with half_way(one) as ranks:
            send(ranks[-1], signal.SIGKILL)
        _, err = first.communicate(timeout=120)
        expect_equal(first.returncode, 0, err)
        expect_equal(one.events()[-1]["starts"], 2, "starts")
        one.expect_sound([ONE])


def launchers_are_told_how_to_survive_a_rank_that_dies_early():
    launch = """launch = ["sh", "-c", 'echo "$PMIX_MCA_gds" >> gds; exec "$@"', "sh"]"""
    with campaign(run=launch) as one:
        one.nightly("--today", ONE)
        environment = {**os.environ, "PYTHON": sys.executable, "PMIX_MCA_gds": "the site's"}
        one.nightly("--today", TWO, environment=environment)
        environment.pop("PMIX_MCA_gds")
        one.nightly("--today", THREE, environment=environment)
        expect_equal((one.base / "gds").read_text().splitlines()[1:], ["the site's", "hash"], "PMIX_MCA_gds")


def death_between_any_two_steps_changes_nothing():
    with campaign() as one:
        one.nightly("--today", TWO)
        ledger, published = one.ledger.read_bytes(), one.published / TWO
        whole = {path.name: path.read_bytes() for path in published.iterdir()}
        night = one.folder / "nights" / TWO

        def undo(*steps):
            one.ledger.write_bytes(ledger[:ledger.index(b"\n") + 1])
            for path in steps:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            one.nightly("--today", TWO, says="published 10 ids")
            one.expect_sound([ONE, TWO])
            expect_equal(one.batch(TWO)["digest"], json.loads(whole["batch.json"])["digest"], "digest")
        undo()  # published, not in the ledger
        undo(published)
        expect_equal({path.name: path.read_bytes() for path in published.iterdir()}, whole, "published anew")
        undo(published, night / "checked")
        undo(published, night / "checked", night / "batch.json")
        undo(published, night)
        (one.published / f".{THREE}.new").mkdir()  # a publication that died
        one.nightly("--today", THREE)
        one.expect_sound([ONE, TWO, THREE])


def night_made_again_survives_the_loss_of_its_line():
    with campaign() as one:
        one.nightly("--today", TWO)

        def lose_line_of(made_again, torn):
            one.nightly("--night", made_again)
            before, ids = one.ledger.read_bytes(), one.batch(made_again)["ids"]
            one.ledger.write_bytes(before[:before.rstrip().rindex(b"\n") + 1 + torn])
            expect(f"{made_again}  published, not in the ledger" in one.nightly("--status", "--today", TWO, code=75), "status")
            one.nightly("--skip", made_again, "--why", "it is published", code=64)
            one.nightly("--today", TWO, says=f"published {made_again}")
            one.expect_sound([ONE, TWO])
            expect_equal((one.ledger.read_bytes(), one.batch(made_again)["ids"]), (before, ids), "the line again")
            one.nightly("--today", TWO, says="nothing to do")
        for night in (ONE, TWO):
            for torn in (0, 40):
                one.nightly("--withdraw", night, "--why", "to be made again")
                lose_line_of(night, torn)


def withdrawal_that_died_is_brought_to_its_end():
    with campaign() as one:
        one.nightly("--today", TWO)
        night, published = one.folder / "nights" / TWO, one.published / TWO
        for moved in ([], [published]):
            copies = [(path, one.base / path.parent.name) for path in (night, published)]
            for path, copy in copies:
                shutil.copytree(path, copy)
            one.nightly("--withdraw", TWO, "--why", "once more")
            for path, copy in copies:
                if path not in moved:
                    shutil.copytree(copy, path)
                shutil.rmtree(copy)
            one.nightly("--today", TWO, says="nothing to do")
            one.expect_sound([ONE])
            expect(not night.exists(), "the batch that was withdrawn would be published again")
            one.nightly("--night", TWO, says="begins: 0 labelled, 10 pending")
            one.expect_sound([ONE, TWO])


def night_that_began_before_others_were_published_starts_over():
    with campaign(run='launch = ["false"]\nattempts = 1') as one:
        one.nightly("--today", ONE, code=69)
        one.write(run='launch = ["env"]')
        one.nightly("--night", TWO)
        one.nightly("--night", ONE, says="other nights have chosen ids since it began; it starts over")
        one.expect_sound([ONE, TWO])
        one.write(run='launch = ["false"]\nattempts = 1')
        one.nightly("--today", THREE, code=69)
        (one.labels / "a.txt").write_text("\n".join(one.batch(ONE)["ids"]))
        one.write(run='launch = ["env"]')
        one.nightly("--today", THREE, says="goes on where it stopped")  # no id was chosen since


def damaged_publication_is_put_right():
    with campaign() as one:
        one.nightly("--today", TWO)
        ids = one.published / ONE / "ids.csv"
        ids.write_bytes(ids.read_bytes().replace(b"s", b"S", 1))
        shutil.rmtree(one.published / TWO)
        one.nightly("--today", TWO, says="damaged, published again")
        one.expect_sound([ONE, TWO])
        expect((one.published / f".{ONE}.damaged-1").exists(), "the evidence is gone")
        for copy in (one.published / ONE, one.folder / "nights" / ONE / "checked"):
            (copy / "batch.json").write_bytes((copy / "batch.json").read_bytes()[:-100])
        one.nightly("--today", THREE, code=65, says="A published batch is damaged")
        expect_equal(one.nights(), [ONE, TWO], "nothing new")
        one.nightly("--withdraw", ONE, "--why", "both copies damaged")
        one.nightly("--today", THREE)
        one.expect_sound([TWO, THREE])


def damaged_ledger_stops_everything_until_it_is_repaired():
    with campaign() as one:
        one.nightly("--today", THREE)
        good = one.ledger.read_bytes()
        for place in (20, len(good) // 2, len(good) - 200):
            one.ledger.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1:])
            one.nightly("--today", FOUR, code=65, says="is damaged")
            one.nightly("--repair", "--today", THREE, says="has 3 lines again")
            one.expect_sound([ONE, TWO, THREE])
            one.ledger.write_bytes(good)
        one.ledger.write_bytes(good[:-40])  # an append that died
        one.nightly("--today", THREE, says="the unfinished last line does not count")
        one.expect_sound([ONE, TWO, THREE])
        one.ledger.write_bytes(good[:good.index(b"\n") + 1])  # an old one, out of a backup
        one.nightly("--today", "2025-03-30", "--status", code=75)
        one.nightly("--night", FOUR, says=f"published {TWO}, {THREE}, {FOUR}")
        one.expect_sound([ONE, TWO, THREE, FOUR])
        one.ledger.unlink()
        one.nightly("--repair", "--today", FOUR, says="has 4 lines again")
        one.expect_sound([ONE, TWO, THREE, FOUR])


def batch_that_is_not_what_it_says_is_not_published():
    with campaign(rows=16000, select=SLOW) as one:
        one.nightly("--today", ONE)
        kept = one.folder / "nights" / ONE

        def fail(change):
            shutil.rmtree(kept / "checked", ignore_errors=True)
            shutil.rmtree(one.published, ignore_errors=True)
            one.ledger.unlink(missing_ok=True)
            batch = json.loads(whole)
            change(batch)
            (kept / "batch.json").write_text(json.dumps(batch))
            text = one.nightly("--today", ONE, code=70, says="is not published")
            expect_equal(one.nights(), [], "published nights")
            return text
        whole = (kept / "batch.json").read_text()

        def swap(rows):
            rows[0], rows[1] = rows[1], rows[0]
        expect("digest" in fail(lambda batch: swap(batch["rows"])), "swapped rows")
        expect("those of its rows" in fail(lambda batch: swap(batch["ids"])), "swapped ids")
        expect("looked up" in fail(lambda batch: batch["ids"].__setitem__(0, "nobody")), "unknown id")
        expect("looked up" in fail(lambda batch: batch.update(ids=[f"x{k}" for k in range(500)])), "unknown ids")
        expect("is not published" in fail(lambda batch: batch["rows"].__setitem__(0, 2**70)), "a row beyond 64 bits")
        expect("'timing'" in fail(lambda batch: batch.pop("timing")), "no timing")
        expect("twice" in fail(lambda batch: batch["ids"].__setitem__(0, batch["ids"][1])), "an id twice")
        columns = ("ids", "rows", "score", "gain")
        expect("instead of" in fail(lambda batch: [batch[name].pop() for name in columns]), "short")
        one.nightly("--today", ONE)  # selects anew
        one.expect_sound([ONE])
        expect_equal(one.batch(ONE)["digest"], json.loads(whole)["digest"], "digest")


def check_that_cannot_be_run_says_nothing_of_the_batch():
    with campaign() as one:
        for check, code, says in (("no-such-program", 69, "No such file"), ("false", 69, "ended with 1 and no verdict"),
                                  ("true", 69, "ended with 0 and no verdict")):
            one.write(run=f'launch = ["env"]\ncheck = ["{check}"]')
            one.nightly("--today", ONE, code=code, says=says)
            kept = one.folder / "nights" / ONE / "batch.json"
            expect(kept.exists() and not one.nights(), "the batch is neither rejected nor published")
        for script, code in (("kill -9 $$", 69), ("exit 71", 71), ("exit 75", 75)):
            one.write(run=f'launch = ["env"]\ncheck = ["sh", "-c", "{script}"]')
            one.nightly("--today", ONE, code=code, says="no verdict")
            expect(kept.exists() and not one.nights(), "the batch is neither rejected nor published")
        one.write(run='launch = ["env"]')
        shard = one.pool.folder / one.pool.shards[-1].name
        whole = shard.read_bytes()
        shard.write_bytes(whole[:len(whole) // 2])
        one.nightly("--today", ONE, code=65, says="no verdict")
        expect(kept.exists() and not one.nights(), "the batch is neither rejected nor published")
        shard.write_bytes(whole)
        one.nightly("--today", ONE)
        one.expect_sound([ONE])
        expect_equal(one.events()[-1]["starts"], 1, "selections")


def withdrawn_ids_are_free_and_skipped_nights_stay_empty():
    with campaign() as one:
        one.nightly("--today", ONE)
        one.nightly("--skip", TWO, code=64)
        one.nightly("--skip", TWO, "--why", "holiday")
        one.nightly("--today", THREE)
        one.expect_sound([ONE, THREE])
        before = one.batch(THREE)["ids"]
        one.nightly("--withdraw", THREE, "--why", "a camera was dirty")
        one.nightly("--today", THREE, says="nothing to do")
        one.nightly("--night", THREE)
        expect_equal(one.batch(THREE)["ids"], before, "the same ids again")
        one.nightly("--night", TWO)
        one.expect_sound([ONE, TWO, THREE])
        one.nightly("--withdraw", FOUR, "--why", "x", code=64)
        one.nightly("--skip", ONE, "--why", "x", code=64)


def changed_campaign_or_pool_starts_a_night_over():
    with campaign(rows=16000, select=SLOW) as one:
        def stop_half_way():
            first = one.start("--today", ONE)
            with half_way(one):
                first.terminate()
            expect_equal(first.wait(60), 75, "interrupted")
        stop_half_way()
        one.write(select=SLOW.replace("500", "400"))
        one.nightly("--today", ONE, says="the campaign file has changed")
        expect_equal(one.events()[-1]["rows"], 400, "rows")
        one.nightly("--withdraw", ONE, "--why", "again")
        one.write(select=SLOW)
        first = one.start("--night", ONE)
        with half_way(one):
            first.terminate()
        expect_equal(first.wait(60), 75, "interrupted")
        other = Pool(one.base / "other", 6000, 4, seed=5)
        os.replace(other.shards[0], one.base / "pool" / other.shards[0].name)
        one.nightly("--night", ONE, says="it starts over")
        one.expect_sound([ONE])


def full_disk_publishes_nothing_until_there_is_room():
    with campaign() as one:
        one.folder.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", one.folder], capture_output=True).returncode:
            raise Skip("no file system of its own can be mounted here")
        try:
            for room in (4, 12, 24, 48, 56, 64, 72):  # KiB: another step fails
                ballast = one.folder / "ballast"
                free = os.statvfs(one.folder).f_bavail * os.statvfs(one.folder).f_frsize
                ballast.write_bytes(bytes(free - 1024 * room))
                process = one.start("--today", ONE)
                _, err = process.communicate(timeout=60)
                expect(process.returncode in (0, 73, 74), err)
                if process.returncode:
                    expect(not one.events(), f"{room} KiB: in the ledger:\n{err}")
                ballast.unlink()
                one.nightly("--today", ONE)
                one.expect_sound([ONE])
                one.nightly("--withdraw", ONE, "--why", "once more, with other room")
                one.ledger.unlink()
                for path in [*(one.folder / "nights").iterdir(), *one.published.iterdir()]:
                    shutil.rmtree(path)
        finally:
            subprocess.run(["umount", one.folder], check=True)


def two_campaigns_run_side_by_side():
    with campaign(rows=16000, select=SLOW) as one:
        two = Campaign(one.base, "krill", select=SLOW.replace("facility_location", "k_center"))
        started = [each.start("--today", ONE) for each in (one, two)]
        for each in started:
            expect_equal(each.wait(120), 0, each.stderr.read())
        for each in (one, two):
            each.expect_sound([ONE])


def mistakes_in_the_campaign_file_are_named():
    with campaign() as one:
        box = one.base / "box"  # what a launcher draws
        rule = "-" * 60
        box.write_text(f"#!/bin/sh\ncat <<END\n{rule}\nThere are not enough\nslots in it\n\n  seine\n{rule}\nEND\nexit 1\n")
        box.chmod(0o755)
        for values, code, says in (({"run": "rank = 3"}, 78, "run.rank"), ({"select": "strategy = 1"}, 78, "batch"),
                                   ({"by": "pbs"}, 78, "local or slurm"), ({"catch_up": '"x"'}, 78, "catch_up"),
                                   ({"select": 'strategy = "badge"\nbatch = 3\nout = "x"'}, 78, "out"),
                                   ({"select": 'strategy = "bad"\nbatch = 3'}, 64, "seine: error: "),
                                   ({"catch_up": 99999999999}, 78, "catch_up"), ({"catch_up": -1}, 78, "catch_up"),
                                   ({"run": "attempts = 0"}, 78, "attempts"), ({"run": "poll = nan"}, 78, "poll"),
                                   ({"run": "launch = [1]"}, 78, "launch"),
                                   ({"select": 'strategy = "badge"\nbatch = "3"'}, 78, "batch"),
                                   ({"select": 'strategy = "badge"\nbatch = 3\nseed = 2025-03-01'}, 78, "seed"),
                                   ({"pool": "none"}, 66, "no file matches"),
                                   ({"run": f'launch = ["{box}"]'}, 69, 'says "There are not enough slots in it"'),
                                   ({"run": 'launch = ["none"]'}, 69, "none cannot be started")):
            before = dict(one.values)
            one.write(**values)
            expect("Traceback" not in one.nightly("--today", ONE, code=code, says=says), values)
            one.write(**before)
        whole = one.file.read_text()
        for line, instead, code in ((r"pool = .*", "pool = 5", 78), (r"pool = .*", "pool = []", 78),
                                    (r"pool = .*", "pool = [1]", 78), (r"labelled = .*", "labelled = [1]", 78)):
            one.file.write_text(re.sub(line, instead, whole))
            expect("Traceback" not in one.nightly("--today", ONE, code=code, says=instead), instead)
        one.file.write_text(re.sub(r"pool = .*", 'pool = "list.txt"', whole))
        one.nightly("--today", ONE, code=66, says="list.txt: no such list")
        (one.base / "list.txt").write_text("none.h5\n")
        one.nightly("--today", ONE, code=66, says="none.h5, listed in list.txt: no such file")
        one.file.write_text(whole)
        os.mkdir(one.base / "tools")
        for tool in ("bash", "env", "dirname", "readlink"):
            os.symlink(shutil.which(tool), one.base / "tools" / tool)
        one.write(run="")
        one.nightly("--today", ONE, code=69, says="mpirun cannot be started",
                    environment={**os.environ, "PYTHON": sys.executable, "PATH": str(one.base / "tools")})
        one.write(run='launch = ["env"]')
        one.nightly("--today", ONE)
        one.expect_sound([ONE])
        one.file = JOBS / "campaign.toml"  # the example has none
        expect("2026-01-05  due" in one.nightly("--today", "2026-01-05", "--status", code=75), "the example")


def exhausted_pool_says_so():
    with campaign(rows=24) as one:
        one.nightly("--today", THREE)
        expect_equal([event["rows"] for event in one.events()], [10, 10, 4], "rows")
        expect("the pool is exhausted" in (one.published / THREE / "summary.md").read_text(), "summary")
        one.nightly("--today", FOUR, code=65, says="seine: error: no candidate is left")
        one.expect_sound([ONE, TWO, THREE])


CASES = [value for name, value in list(globals().items())
         if callable(value) and getattr(value, "__module__", "") == "__main__" and name not in ("campaign", "half_way")]

if __name__ == "__main__":
    sys.exit(run_cases("Nightly", CASES))
