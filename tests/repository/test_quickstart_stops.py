"""``scripts/quickstart.sh`` under signals and errors: its programs save, and its exit code says what happened."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import PATIENCE, wait_for

ROOT = Path(__file__).parents[2]
SEARCH, TABLE = "search.wsr_nas", "search.tabular"


# A shell cannot trap what is ignored at its start, as nohup and a job in the background ignore some signals.
LISTENING = [sys.executable, "-c", """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""]


@pytest.fixture
def start(tmp_path):
    """Start the quickstart with an interpreter that notes modules; some work until a signal, some fail."""
    stub, notes = tmp_path / "python", tmp_path / "notes"
    cells = tmp_path / "runs" / "search" / "quickstart-digits" / "genotypes"
    cells.mkdir(parents=True)
    (cells / "initial.json").touch()
    notes.mkdir()
    stub.write_text(f"""#!/usr/bin/env bash
case "$1" in
    -m) module="$2"
        touch "{notes}/began $module"
        case " ${{WORKS:-}} ${{ENDS_WELL:-}} " in *" $module "*)
            code=75
            [ "$module" != "${{ENDS_WELL:-}}" ] || code=0
            trap 'sleep 0.2; touch "{notes}/saved $module"; exit $code' TERM USR1
            trap 'exit 130' INT
            exec 2> /dev/null  # bash tells of its sleep that a signal ends
            touch "{notes}/ready $module"
            while :; do sleep 0.05; done ;;
        esac
        case " ${{FAILS:-}} " in *" $module "*)
            sleep "${{AFTER:-0}}"
            echo "error: $module says no" >&2
            exit 3 ;;
        esac ;;
    -c) echo {tmp_path} ;;
    -) cat > /dev/null ;;
esac
""")
    stub.chmod(0o755)

    def begin(**environment):
        clean = {name: value for name, value in os.environ.items()
                 if name not in ("DATA", "NGPU", "NNODES", "DATASET", "TABLE")}
        return subprocess.Popen([*LISTENING, "bash", str(ROOT / "scripts" / "quickstart.sh")], cwd=tmp_path, text=True,
                                env=clean | {"WSRNAS_PYTHON": str(stub), "RUNS": str(tmp_path / "runs")} | environment,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    begin.noted = lambda word: {file.name.split()[1] for file in notes.glob(f"{word} *")}
    return begin


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGHUP, 75),
                                              (signal.SIGINT, 130)])
def test_a_signal_reaches_the_programs_of_both_chains_and_the_script_waits(number, code, start):
    script = start(WORKS=f"{SEARCH} {TABLE}")
    wait_for(lambda: start.noted("ready") == {SEARCH, TABLE})
    script.send_signal(number)
    printed, said = script.communicate(timeout=PATIENCE)
    assert (script.returncode, said) == (code, "") and "2/3" not in printed
    assert start.noted("saved") == (set() if number == signal.SIGINT else {SEARCH, TABLE})
    assert start.noted("began") == {SEARCH, TABLE}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGHUP, 75),
                                              (signal.SIGINT, 130)])
def test_a_signal_to_all_processes_of_the_script_does_no_more(number, code, start):
    """As a terminal sends it, whose Ctrl-C also reaches what the script waits with."""
    script = start(WORKS=f"{SEARCH} {TABLE}")
    wait_for(lambda: start.noted("ready") == {SEARCH, TABLE})
    os.killpg(script.pid, number)
    printed, said = script.communicate(timeout=PATIENCE)
    assert (script.returncode, said) == (code, "") and "2/3" not in printed
    assert start.noted("saved") == (set() if number == signal.SIGINT else {SEARCH, TABLE})


def test_a_chain_whose_program_ends_well_after_a_signal_does_not_go_on(start, tmp_path):
    (tmp_path / "runs" / "search" / "quickstart-digits" / "genotypes" / "initial.json").unlink()
    script = start(WORKS=SEARCH, ENDS_WELL=TABLE)
    wait_for(lambda: start.noted("ready") == {SEARCH, TABLE})
    script.send_signal(signal.SIGTERM)
    script.communicate(timeout=PATIENCE)
    assert script.returncode == 75 and start.noted("began") == start.noted("saved") == {SEARCH, TABLE}


def test_an_error_before_the_first_cell_is_written_ends_the_other_chain(start, tmp_path):
    (tmp_path / "runs" / "search" / "quickstart-digits" / "genotypes" / "initial.json").unlink()
    script = start(FAILS=SEARCH, AFTER="1")
    _, said = script.communicate(timeout=PATIENCE)
    assert (script.returncode, said) == (3, f"error: {SEARCH} says no\n") and start.noted("began") == {SEARCH, TABLE}


def test_an_error_beside_the_search_is_told_at_once(start):
    script = start(WORKS=SEARCH, FAILS=TABLE, AFTER="0.5")
    printed, said = script.communicate(timeout=PATIENCE)
    assert (script.returncode, said) == (3, f"error: {TABLE} says no\n") and "2/3" not in printed
    assert start.noted("saved") == start.noted("ready")  # none, if the error came before the search


def test_an_error_beside_the_last_step_is_told(start):
    script = start(FAILS=TABLE, AFTER="1")
    printed, said = script.communicate(timeout=PATIENCE)
    assert (script.returncode, said) == (3, f"error: {TABLE} says no\n") and "3/3" in printed


def test_an_error_of_the_search_stops_the_other_chain_which_saves(start):
    script = start(WORKS=TABLE, FAILS=SEARCH, AFTER="0.5")
    _, said = script.communicate(timeout=PATIENCE)
    assert (script.returncode, said) == (3, f"error: {SEARCH} says no\n")
    assert start.noted("saved") == start.noted("ready")


def test_a_folder_that_cannot_be_written_is_named(start, tmp_path):
    (tmp_path / "file").touch()
    script = start(RUNS=str(tmp_path / "file"))
    _, said = script.communicate(timeout=PATIENCE)
    assert (script.returncode, said) == (2, f"error: cannot write into RUNS={tmp_path}/file; expected a folder for the "
                                            "results\n")
    assert start.noted("began") == set()


@pytest.mark.parametrize(("script", "words"), [
    ("quickstart", "unknown argument --dataset; DATASET, DATA, TABLE and RUNS come from the environment"),
    ("setup", "unknown argument --dataset; expected --dev, --oldest or nothing")])
def test_a_flag_that_a_script_does_not_have_is_refused(script, words, tmp_path):
    done = subprocess.run(["bash", str(ROOT / "scripts" / f"{script}.sh"), "--dataset", "cifar10"], text=True,
                          capture_output=True, cwd=tmp_path, env=os.environ | {"WSRNAS_PYTHON": "/no/such/python"})
    assert done.returncode == 2 and words in done.stderr and not done.stdout
