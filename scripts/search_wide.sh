#!/usr/bin/env bash
# Wsr-NAS over sixteen strengths from 0.01 to 0.25, one by PGD and fifteen estimated and checked against PGD on the way.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch search.wsr_nas --preset wide --data "$DATA" --runs "$RUNS" "$@"
