#!/usr/bin/env bash
# The whole job in minutes on two CPU cores: search a cell and retrain it; beside that, let a strategy search a table,
# where what it finds is known, and retrain the unsearched cell; then compare both cells.
#
#   bash scripts/quickstart.sh                                       handwritten digits, nothing to download
#   DATASET=folder DATA=/path/to/images bash scripts/quickstart.sh   train/ and test/ (or val/) of class folders
#   DATASET=cifar10 bash scripts/quickstart.sh                       downloads CIFAR-10 into DATA (default: data)
#
# TABLE names a table of measured architectures for the first step (docs/SEARCH.md; default: a synthetic one).
# After a stop, the same command resumes. RUNS names the folder of the results (default: runs).
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{ s/^# \{0,1\}//p; }' "$0"; exit ;; esac
[ $# = 0 ] || {
    echo "error: unknown argument $1; DATASET, DATA, TABLE and RUNS come from the environment" >&2
    exit 2
}
source "$(dirname "$0")/launch.sh"
DATASET="${DATASET:-digits}"

common=(--preset tiny --dataset "$DATASET" --data "$DATA" --runs "$RUNS")
limits=(--max_test 160 --batch_size 40)
search=(--warmup_architectures 2 --iterations 3)  # a third less than the preset
retrain=()
if [ "$DATASET" != digits ]; then
    # Smaller noise fools networks on photographs than on digits. A few thousand images are enough here.
    search+=(--max_train 2000 --max_validation 300 --epsilon 0.03 --strengths 0.03 0.06 0.09 0.12)
    retrain=(--max_train 3000 --held_out 300 --epsilon 0.03)
    limits=(--max_test 300 --batch_size 50)
    common+=(--download) limits+=(--download)  # has no effect on a folder of images
fi
name="quickstart-$DATASET"
cells="$RUNS/search/$name"
networks="$RUNS/retrain/$name"
notes="$RUNS/tabular/$name.txt"
{ mkdir -p "$RUNS/tabular" && : >> "$notes"; } 2> /dev/null || {
    echo "error: cannot write into RUNS=$RUNS; expected a folder for the results" >&2
    exit 2
}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"  # threads of networks as small as these wait for each other

retrain() { # CELL NAME
    launch retrain.train_cifar "${common[@]}" ${retrain[@]+"${retrain[@]}"} --arch "$1" --save "$name-$2"
}

evaluate() { # NETWORK ... (what was measured before is read)
    launch retrain.evaluate --dataset "$DATASET" --data "$DATA" --runs "$RUNS" "${limits[@]}" --attacks pgd-20 \
        --strengths 0.03 0.1 0.17 0.25 --checks quick --check_images 50 --model "$@"
}

beside() { # on the other core
    local asked=""
    trap 'asked=yes' TERM INT USR1  # the program gets the signal, too; this shell waits until it has saved
    unless_asked() { [ -z "$asked" ] || exit 75; }  # a program that was at its end may have ended well
    NGPU=1 NNODES=1
    "$PYTHON" -m search.tabular --table "${TABLE:-demo}" --size_class 18:20 --strategy wsr --queries 25 50 --seeds 4 \
        --out "$RUNS/tabular/$name"
    until [ -e "$cells/genotypes/initial.json" ]; do  # the search writes it at its start
        unless_asked
        pause 1
    done
    unless_asked
    ( retrain "$cells/genotypes/initial.json" initial )
    unless_asked
    ( evaluate "$networks-initial" )
}

# Both chains run in the background, each step as a process group of its own, to which signals are passed on. So Ctrl-Z
# stops this script alone.
step="" other="" signal=""
pause() { { sleep "$1" || true; } 2> /dev/null; }  # a signal to all processes of this script ends it early
start() { # COMMAND ... (its process: $!)
    set -m
    ( "$@" ) < /dev/null &
    set +m
}
runs() { [ -n "$1" ] && kill -0 "$1" 2> /dev/null; }
stop() { # SIGNAL
    local group
    for group in $step $other; do kill "-$1" -- "-$group" 2> /dev/null || true; done
}
caught() { # SIGNAL
    signal="$1"
    stop "$1"
}
trap 'caught TERM' TERM HUP
trap 'caught USR1' USR1
trap 'caught INT' INT
trap 'stop TERM' EXIT

leave() { # STATUS (of what has failed; the rest saves first)
    [ -n "$signal" ] || stop TERM
    while runs "$step" || runs "$other"; do pause 0.2; done
    case "$signal" in "") exit "$1" ;; INT) exit 130 ;; *) exit 75 ;; esac
}

check() { # (leaves after a signal, and where the other chain has failed)
    local status=0
    [ -z "$signal" ] || leave 0
    [ -n "$other" ] && ! runs "$other" || return 0
    wait "$other" || status=$?
    other=""
    [ "$status" = 0 ] || { tail -n 3 "$notes" >&2; leave "$status"; }
}

run() { # COMMAND ... (to its end)
    check
    start "$@"
    step="$!"
    [ -z "$signal" ] || stop "$signal"  # it came while the step began
    while runs "$step"; do
        check
        pause 0.2  # traps run between these; `wait` would lose the exit status of a process that ends during a trap
    done
    wait "$step" || leave "$?"
}

echo "1/3 search a cell on $DATASET"
echo "    beside it, a search in a table with known accuracies, then the initial cell is retrained: $notes"
start beside > "$notes" 2>&1
other="$!"
[ -z "$signal" ] || stop "$signal"
run launch search.wsr_nas "${common[@]}" "${search[@]}" --save "$name"
echo "2/3 retrain the searched cell"
run retrain "$cells/genotype.json" searched
echo "3/3 accuracy over noise strengths"
run evaluate "$networks-searched"
while [ -n "$other" ]; do
    check
    pause 0.2
done
run evaluate "$networks-searched" "$networks-initial" --names searched initial
run "$PYTHON" -m wsrnas.report.last_screen "$RUNS" "$name"
