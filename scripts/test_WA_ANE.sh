#!/usr/bin/env bash
# Table 5 and the wide spectrum for the weighted average, as it should be and as Eq. 6 is printed.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
# --preset tiny takes minutes.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch test_AN_estimator.benchmark --estimators WA-ANE WA-ANE-paper --data "$DATA" --runs "$RUNS" "$@"
