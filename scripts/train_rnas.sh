#!/usr/bin/env bash
# RNAS: its published cell by the recipe of its paper, PGD-7 at 8/255; --arch names another cell.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --recipe rnas --data "$DATA" --runs "$RUNS" "$@"
