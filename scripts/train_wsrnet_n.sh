#!/usr/bin/env bash
# WsrNet-N, PGD-7: 4.72 M parameters (published: 8 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --recipe wsrnet-n --save wsrnet_n --data "$DATA" --runs "$RUNS" "$@"
