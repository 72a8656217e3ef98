#!/usr/bin/env bash
# WsrNet-Plus, PGD-7: 4.74 M parameters (published: 8 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --arch WsrNet_Plus --init_channels 46 --layers 20 --save wsrnet_plus --num_steps 7 --batch_size 400 --weight_decay 0.0005 --data "$DATA" --runs "$RUNS" "$@"
