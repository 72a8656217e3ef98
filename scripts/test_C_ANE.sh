#!/usr/bin/env bash
# Table 5 and the wide spectrum for the continuation AN-Estimator, the one of the search preset "wide".
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
# --preset tiny takes minutes.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch test_AN_estimator.benchmark --estimators C-ANE WA-ANE --data "$DATA" --runs "$RUNS" "$@"
