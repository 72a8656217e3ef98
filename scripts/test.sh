#!/usr/bin/env bash
# Make the environment with the test tools and run the tests.
#
#   bash scripts/test.sh             every test
#   bash scripts/test.sh --fast      without the slow ones and those that start several processes
#   bash scripts/test.sh --oldest    the same as --fast with the oldest packages that requirements.txt allows
#   bash scripts/test.sh --warnings  every warning is an error, in Python's development mode; one process, 30 minutes
#   bash scripts/test.sh search      the tests of one area, a folder of tests/; with --fast, the fast ones of them
#
# Other arguments go to pytest, for example -k WORD or tests/library/test_losses.py.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{ s/^# \{0,1\}//p; }' "$0"; exit ;; esac
unset CDPATH  # cd would look there, and print where it went
cd "$(dirname "$0")/.."

setup="--dev" before="" arguments=() mode=() workers=(-n auto --dist worksteal)
for argument in "$@"; do
    case "$argument" in
        --fast) arguments+=(-m "not slow") ;;
        --warnings) mode=(-X dev -W error) workers=() ;; # workers would not inherit the mode
        --oldest) setup="--oldest" arguments+=(-m "not slow") ;;
        *) if [[ "$before" != -? && "$argument" != */* && -d "tests/$argument" ]]; then argument="tests/$argument"; fi
           arguments+=("$argument") ;;
    esac
    before="$argument"
done
PYTHON="$(bash scripts/setup.sh "$setup")"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # every core has a worker; more threads would wait for one another
unset PYTHONDONTWRITEBYTECODE # every worker, and every program that a test starts, would compile all files anew
# Before bash 4.4, an empty array is an unset variable.
"$PYTHON" ${mode[@]+"${mode[@]}"} -m pytest -q ${workers[@]+"${workers[@]}"} ${arguments[@]+"${arguments[@]}"}
