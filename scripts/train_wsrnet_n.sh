#!/usr/bin/env bash
# WsrNet-N, PGD-7: 4.72 M parameters (published: 8 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --arch WsrNet_N --init_channels 50 --layers 20 --save wsrnet_n --num_steps 7 --batch_size 400 --weight_decay 0.0007 --data "$DATA" --runs "$RUNS" "$@"
