#!/usr/bin/env bash
# RNAS: its published cell (RNAS_repo_H) by the recipe of its paper, PGD-7 at 8/255. --arch RNAS_repo_L, or a found
# genotype.json; --dataset cifar100 or svhn is the transfer.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --recipe rnas --data "$DATA" --runs "$RUNS" "$@"
