#!/usr/bin/env bash
# WsrNet-Robust: WsrNet-Basic's cell, trained for robustness (published: 2 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --arch WsrNet_Robust --init_channels 45 --layers 20 --save wsrnet_robust --num_steps 7 --batch_size 64 --weight_decay 0.0001 --data "$DATA" --runs "$RUNS" "$@"
