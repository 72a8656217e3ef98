#!/usr/bin/env bash
# Wsr-NAS over eleven strengths, three by PGD and eight estimated: the search of WsrNet-Plus.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch search.wsr_nas --preset plus --data "$DATA" --runs "$RUNS" "$@"
