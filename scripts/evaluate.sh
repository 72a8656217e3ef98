#!/usr/bin/env bash
# Accuracy under attack: scripts/evaluate.sh --model RUN [RUN ...] [--protocol paper|rnas|spectrum|official ...].
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.evaluate --data "$DATA" --runs "$RUNS" "$@"
