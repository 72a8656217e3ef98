"""``launch`` and the Slurm template: which command runs where, what becomes of signals and exit codes.

Slurm is a few shell scripts that behave like it. Run as a program, this file is a training of one process.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import PATIENCE, wait_for

ROOT = Path(__file__).parents[2]
SOURCED = f"set -euo pipefail\nsource {ROOT}/scripts/launch.sh\n"
TEMPLATE = ROOT / "scripts" / "slurm" / "run.sbatch"
OURS = ("DATA", "RUNS", "NGPU", "NNODES", "OMP_NUM_THREADS", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "DATASET", "STRENGTHS")


def main():
    """Steps of a tenth of a second until asked to stop; notes them in the folder ``NOTES``."""
    from wsrnas.runtime.distributed import World
    from wsrnas.runtime.errors import Preempted
    from wsrnas.runtime.preemption import stop_requests

    notes = Path(os.environ["NOTES"])
    with stop_requests(World()) as stop:
        for step in range(10 * PATIENCE):
            (notes / "new").write_text(f"{os.getpid()} {step}")
            (notes / "new").replace(notes / "began")  # the test reads it meanwhile, and must not find it empty
            time.sleep(0.1)
            if stop():
                (notes / "saved").write_text(str(step))
                raise Preempted(f"stopped after step {step}")


if __name__ == "__main__":
    from wsrnas.runtime.program import run_program
    run_program(main)


def clean(**environment):
    """This process' environment without what the scripts read."""
    return {name: value for name, value in os.environ.items()
            if name not in OURS and not name.startswith(("SLURM_", "SRUN_", "RDZV_", "WSRNAS_"))} | environment


def write_script(path, text):
    path.write_text(f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)
    return path


# -- launch ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def launch(tmp_path):
    """Run ``launch some.module --flag`` with an interpreter that notes command line, process and environment."""
    log = tmp_path / "commands"
    stub = write_script(tmp_path / "python", f"""
case "$1" in
    -m) echo "$@" >> {log}; env > {tmp_path}/environment; echo $$ > {tmp_path}/process
        [ -z "${{DRY_RUN_CODE:-}}" ] || exit "$DRY_RUN_CODE"
        [ -z "${{SLEEPS:-}}" ] || {{ trap "exit 75" TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done; }} ;;
    -c) echo {tmp_path} ;;
    -) cat > /dev/null ;;
esac
""")
    script = write_script(tmp_path / "script.sh", SOURCED + 'launch some.module --flag "two words"\n')

    def start(**environment):
        return subprocess.Popen(["bash", script], cwd=tmp_path, env=clean(WSRNAS_PYTHON=str(stub), **environment),
                                text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(**environment):
        process = start(**environment)
        _, printed = process.communicate(timeout=PATIENCE)
        commands = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return process.returncode, printed, commands

    run.start, run.folder = start, tmp_path
    run.environment = lambda: dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines()
                                   if "=" in line)
    return run


ALONE = "-m some.module --flag two words"
RDZV = {"NNODES": "2", "RDZV_ENDPOINT": "first:29400"}
JOINED = ("-m wsrnas.runtime.launcher --nnodes=2 --rdzv_backend=c10d --rdzv_id={} --rdzv_endpoint=first:29400 "
          "--rdzv_conf=join_timeout=3600,read_timeout=3600 --nproc_per_node={} " + ALONE)


def test_on_one_machine_a_dry_run_and_torchrun_are_started(launch):
    assert launch() == (0, "", [ALONE])
    assert launch(NNODES="1", NGPU="3")[2] == [
        f"{ALONE} --dry_run", f"-m wsrnas.runtime.launcher --standalone --nproc_per_node=3 {ALONE}"]


def test_a_search_path_of_cd_does_not_lead_elsewhere(launch, tmp_path):
    (tmp_path / "elsewhere" / "scripts").mkdir(parents=True)
    for path in (f".:{tmp_path}/elsewhere", f"{tmp_path}/elsewhere"):
        assert launch(CDPATH=path) == (0, "", [ALONE])
    for script in (ROOT / "scripts").glob("*.sh"):
        text = script.read_text()
        assert "cd " not in text or text.index("unset CDPATH") < text.index('\ncd "') or "source" in text, script


def test_empty_arrays_are_written_for_older_shells():
    """Before bash 4.4, "${empty[@]}" is an unset variable: macOS has 3.2."""
    for script, names in (("test", ("mode", "workers", "arguments")), ("quickstart", ("retrain",))):
        text = (ROOT / "scripts" / f"{script}.sh").read_text()
        for name in names:
            plain, guarded = f'"${{{name}[@]}}"', f'${{{name}[@]+"${{{name}[@]}}"}}'
            assert guarded in text and plain not in text.replace(guarded, "")


def test_without_nproc_the_cores_are_counted_in_another_way(launch, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "cat", "cksum", "tr", "env", "getconf", "flock", "rm"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    assert launch(PATH=str(tools), NGPU="1") == (0, "", [ALONE])
    code, said, commands = launch(PATH=str(tools), NGPU="2")
    assert (code, said) == (0, "") and len(commands) == 2
    assert int(launch.environment()["OMP_NUM_THREADS"]) >= 1


def test_several_machines_meet_and_the_first_one_checks(launch):
    assert launch(**RDZV, NGPU="8")[2] == [f"{ALONE} --dry_run", JOINED.format("wsrnas", 8)]
    assert launch(**RDZV, SLURM_NODEID="0", SLURM_JOB_ID="77")[2] == [f"{ALONE} --dry_run", JOINED.format("77", 1)]
    assert launch(**RDZV, SLURM_NODEID="1", SLURM_JOB_ID="77", RDZV_ID="mine")[2] == [JOINED.format("mine", 1)]


@pytest.mark.parametrize(("environment", "said"), [
    ({"NGPU": "0"}, "NGPU=0; expected a number of processes"),
    ({"NNODES": "two"}, "NNODES=two; expected a number of machines"),
    ({"NNODES": "2"}, "NNODES=2 and RDZV_ENDPOINT=; expected HOST:PORT of the first machine"),
    ({"NNODES": "2", "RDZV_ENDPOINT": "first"},
     "NNODES=2 and RDZV_ENDPOINT=first; expected HOST:PORT of the first machine"),
])
def test_what_cannot_be_launched_is_told_in_one_sentence(environment, said, launch):
    assert launch(**environment) == (2, f"error: {said}\n", [])


def test_a_check_that_fails_is_the_end(launch):
    assert launch(NGPU="2", DRY_RUN_CODE="2") == (2, "", [f"{ALONE} --dry_run"])


def test_processes_share_the_cores_and_have_time_to_save(launch):
    cores = len(os.sched_getaffinity(0))
    for processes in (2, 2 * cores):
        launch(NGPU=str(processes))
        assert launch.environment()["OMP_NUM_THREADS"] == str(max(cores // processes, 1))
    assert launch.environment()["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "240"
    launch(NGPU="2", OMP_NUM_THREADS="5", TORCH_ELASTIC_SHUTDOWN_TIMEOUT="9")
    assert launch.environment()["OMP_NUM_THREADS"] == "5"
    assert launch.environment()["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == "9"
    launch()
    assert "OMP_NUM_THREADS" not in launch.environment()  # one process has all cores


@pytest.mark.parametrize("environment", [{}, RDZV | {"SLURM_NODEID": "1"}])
def test_the_program_takes_the_place_of_the_script(environment, launch):
    with launch.start(**environment, SLEEPS="yes") as process:
        wait_for((launch.folder / "ready").exists)
        assert (launch.folder / "process").read_text().strip() == str(process.pid)
        process.terminate()
        assert process.wait(PATIENCE) == 75


# -- the template ---------------------------------------------------------------------------------------------------

@pytest.fixture
def slurm(tmp_path):
    """Start the template in a job of a Slurm that has one machine and notes what is asked of it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "repository" / "scripts").mkdir(parents=True)
    (tmp_path / "repository" / "scripts" / "launch.sh").touch()
    # srun forwards SIGUSR1 to its tasks; SIGTERM to itself is the order to kill them.
    write_script(tmp_path / "bin" / "srun", """
echo "$@" >> "$NOTES/srun"; env > "$NOTES/environment"
shift; "$@" & task=$!
trap 'echo USR1 >> "$NOTES/signals"; kill -USR1 $task; again=yes' USR1
trap 'echo TERM >> "$NOTES/signals"; kill -KILL $task; again=yes' TERM
echo $task > "$NOTES/task"
again=yes
while [ -n "$again" ]; do again=""; wait $task; status=$?; done
exit $status
""")
    write_script(tmp_path / "bin" / "scontrol", """
echo "$@" >> "$NOTES/scontrol"
[ "$1 $2" != "show hostnames" ] || printf 'node7\\nnode8\\n'
""")
    copy = tmp_path / "slurm_script"  # sbatch copies it to where the repository is not
    copy.write_bytes(TEMPLATE.read_bytes())
    job = {"SLURM_JOB_ID": "50077", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "1",
           "SLURM_SUBMIT_DIR": str(tmp_path / "repository"), "NOTES": str(tmp_path / "notes"),
           "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    class Job:
        notes = tmp_path / "notes"

        def __init__(self, *argv, **environment):
            self.process = subprocess.Popen(["bash", copy, *map(str, argv)], cwd="/", text=True,
                                            env=clean(**job | environment), stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE)

        @classmethod
        def note(cls, name):
            path = cls.notes / name
            return path.read_text() if path.exists() else ""

        def end(self):
            """Exit code, what was printed as an error, and the jobs that were requeued."""
            _, printed = self.process.communicate(timeout=PATIENCE)
            requeued = [line.split()[1] for line in self.note("scontrol").splitlines() if line.startswith("requeue")]
            return self.process.returncode, printed, requeued

    return Job


@pytest.fixture
def script(tmp_path):
    """A script that ends as it is told; at SIGUSR1 it exits with ``CODE``, or goes on where that is empty."""
    return write_script(tmp_path / "repository" / "scripts" / "train.sh", """
trap '[ -z "$CODE" ] || exit $CODE' USR1
trap 'exit 75' TERM
until [ -e "$NOTES/task" ]; do sleep 0.01; done  # srun listens now
touch "$NOTES/ready"
[ -z "${AT_ONCE:-}" ] || exit "$AT_ONCE"
while :; do sleep 0.05; done
""")


def test_the_template_holds_nothing_of_a_cluster():
    text = TEMPLATE.read_text()
    done = subprocess.run(["bash", "-n", TEMPLATE], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    flags = [line.split(maxsplit=1)[1] for line in text.splitlines() if line.startswith("#SBATCH")]
    assert sorted(flags) == ["--job-name=wsrnas", "--ntasks-per-node=1", "--open-mode=append", "--output=%x-%j.out",
                             "--requeue", "--signal=B:USR1@300"]
    assert "partition" not in text and "account" not in text and "/home" not in text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.slow
def test_a_training_is_stopped_saved_and_requeued_once(slurm, tmp_path):
    """The whole way: template, srun, script, launch, Python."""
    program = write_script(tmp_path / "repository" / "train.sh", SOURCED + "launch test_launch\n")
    job = slurm(program, WSRNAS_PYTHON=sys.executable, OMP_NUM_THREADS="1",
                PYTHONPATH=f"{Path(__file__).parent}:{ROOT}")
    # Before a step is complete, there is nothing to save.
    wait_for(lambda: job.note("began") and not job.note("began").endswith(" 0"))
    task, step = job.note("began").split()
    assert task == job.note("task").strip()  # neither shell is left between srun and the program
    job.process.send_signal(signal.SIGUSR1)
    code, printed, requeued = job.end()
    saved = job.note("saved")
    # The step was finished, and no other begun.
    assert int(saved) >= int(step) and job.note("began").split()[1] == saved
    assert code == 75 and requeued == ["50077"]
    assert printed == f"stopped after step {saved}; the same command resumes\njob 50077 goes back into the queue\n"
    assert job.note("signals") == "USR1\n"


@pytest.mark.parametrize(("at_once", "requeued"), [("0", []), ("2", []), ("1", []), ("75", ["50077"])])
def test_what_ends_by_itself_is_requeued_only_if_slurm_has_stopped_it(at_once, requeued, slurm, script):
    assert slurm("scripts/train.sh", AT_ONCE=at_once).end()[::2] == (int(at_once), requeued)


@pytest.mark.slow
@pytest.mark.parametrize(("code", "requeued"), [("0", []), ("75", ["50077"]), ("138", ["50077"])])
def test_what_is_asked_to_stop_is_requeued_unless_it_is_finished(code, requeued, slurm, script):
    job = slurm("scripts/train.sh", CODE=code)
    wait_for((slurm.notes / "ready").exists)
    job.process.send_signal(signal.SIGUSR1)
    assert job.end()[::2] == (int(code), requeued)


def test_what_is_cancelled_stays_cancelled(slurm, script):
    job = slurm("scripts/train.sh")
    wait_for((slurm.notes / "ready").exists)
    job.process.terminate()
    time.sleep(0.1)
    assert job.process.poll() is None and job.note("signals") == ""  # srun would kill its tasks
    os.kill(int(job.note("task")), signal.SIGTERM)  # Slurm signals the tasks as well
    assert job.end()[::2] == (75, [])


@pytest.mark.slow
def test_what_does_not_stop_in_time_is_killed_and_requeued(slurm, script):
    job = slurm("scripts/train.sh", CODE="", TORCH_ELASTIC_SHUTDOWN_TIMEOUT="0")
    wait_for((slurm.notes / "ready").exists)
    job.process.send_signal(signal.SIGUSR1)
    wait_for(lambda: job.note("signals"))
    job.process.send_signal(signal.SIGUSR1)  # not handed on: a second signal may be one too many
    job.process.terminate()  # the time limit
    assert job.end()[::2] == (137, ["50077"])
    assert job.note("signals") == "USR1\nTERM\n"


def test_the_allocation_says_how_many_processes_and_where(slurm, script):
    job = slurm("scripts/train.sh", "--flag", "x", AT_ONCE="0", SLURM_GPUS_ON_NODE="8", SLURM_NNODES="2", NGPU="3",
                SLURM_CPUS_PER_TASK="32")
    assert job.end()[0] == 0
    assert job.note("srun") == "--kill-on-bad-exit=1 bash scripts/train.sh --flag x\n"
    assert job.note("scontrol") == "show hostnames node[7-8]\n"
    lines = job.note("environment").splitlines()
    assert {"NGPU=8", "NNODES=2", "RDZV_ENDPOINT=node7:20077", "SRUN_CPUS_PER_TASK=32"} <= set(lines)
    assert slurm("scripts/train.sh", AT_ONCE="0", NGPU="3").end()[0] == 0
    assert "NGPU=3" in job.note("environment").splitlines()


@pytest.mark.parametrize(("flags", "name"), [([], "train"), (["--save", "mine", "--epochs", "3"], "mine"),
                                             (["--save=mine"], "mine")])
def test_tasks_of_an_array_have_seed_and_run_of_their_own(flags, name, slurm, script):
    job = slurm("scripts/train.sh", *flags, AT_ONCE="75", SLURM_ARRAY_JOB_ID="50070", SLURM_ARRAY_TASK_ID="3")
    # The number 50077 alone could mean all tasks of the array.
    assert job.end()[2] == ["50070_3"]
    assert job.note("srun").split()[3:] == [*flags, "--seed", "3", "--save", f"{name}-seed3"]


@pytest.mark.parametrize("name", ["compare", "test_all_ANE", "test_E_minus_ANE"])
@pytest.mark.parametrize("flags", [[], ["--seeds", "3", "--save", "mine"]])
def test_tasks_of_an_array_that_share_their_work_are_the_same_command(flags, name, slurm, script):
    script.rename(script.with_name(f"{name}.sh"))
    assert (ROOT / "scripts" / f"{name}.sh").exists()
    job = slurm(f"scripts/{name}.sh", *flags, AT_ONCE="75", SLURM_ARRAY_JOB_ID="50070", SLURM_ARRAY_TASK_ID="3")
    assert job.end()[2] == ["50070_3"]
    assert job.note("srun").split() == ["--kill-on-bad-exit=1", "bash", f"scripts/{name}.sh", *flags]


@pytest.mark.parametrize("name", ["evaluate", "gpu_check", "quickstart"])
def test_a_script_without_a_run_of_its_own_is_no_array(name, slurm, script):
    script.rename(script.with_name(f"{name}.sh"))
    job = slurm(f"scripts/{name}.sh", SLURM_ARRAY_JOB_ID="50070", SLURM_ARRAY_TASK_ID="3")
    code, printed, requeued = job.end()
    assert (code, printed) == (2, f"error: {name}.sh cannot run in an array: it has no --save for the task to append\n")
    assert requeued == [] and job.note("srun") == ""


@pytest.mark.parametrize(("argv", "environment", "said"), [
    ([], {}, "SCRIPT= is not a file; usage: sbatch"),
    (["scripts/nothing.sh"], {}, "SCRIPT=scripts/nothing.sh is not a file; usage: sbatch"),
    (["scripts/train.sh"], {"SLURM_SUBMIT_DIR": "/"}, "/ has no scripts/launch.sh; submit from the root of the repo"),
    (["scripts/train.sh"], {"SLURM_JOB_ID": ""}, "not a job of Slurm; usage: sbatch"),
])
def test_what_cannot_run_is_told_in_one_sentence(argv, environment, said, slurm, script):
    job = slurm(*argv, **environment)
    code, printed, requeued = job.end()
    assert code == 2 and printed.startswith(f"error: {said}") and printed.count("\n") == 1 and requeued == []
    assert job.note("srun") == ""
