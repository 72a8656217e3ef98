#!/usr/bin/env bash
# Wsr-NAS over sixteen strengths from 0.01 to 0.25: PGD attacks one, fifteen are estimated and checked against PGD.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch search.wsr_nas --preset wide --data "$DATA" --runs "$RUNS" "$@"
