#!/usr/bin/env bash
# RNAS: trains the published cell RNAS_repo_H by the recipe of its paper, PGD-7 at 8/255. --arch takes another cell:
# RNAS_repo_L or the genotype.json of a search. --dataset cifar100 or svhn repeats the paper's transfer.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --recipe rnas --data "$DATA" --runs "$RUNS" "$@"
