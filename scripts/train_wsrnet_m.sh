#!/usr/bin/env bash
# WsrNet-M, PGD-7: 4.48 M parameters (published: 8 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --arch WsrNet_M --init_channels 45 --layers 20 --save wsrnet_m --num_steps 7 --batch_size 400 --weight_decay 0.0007 --data "$DATA" --runs "$RUNS" "$@"
