#!/usr/bin/env bash
# WsrNet-Robust: WsrNet-Basic's cell, trained for robustness (published: 2 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --recipe wsrnet-robust --save wsrnet_robust --data "$DATA" --runs "$RUNS" "$@"
