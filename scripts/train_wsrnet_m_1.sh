#!/usr/bin/env bash
# WsrNet-M-1, PGD-7: 4.54 M parameters; the graph of WsrNet-Plus (published: 8 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --recipe wsrnet-m-1 --save wsrnet_m_1 --data "$DATA" --runs "$RUNS" "$@"
