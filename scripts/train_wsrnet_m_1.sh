#!/usr/bin/env bash
# WsrNet-M-1, PGD-7: 4.54 M parameters; the graph of WsrNet-Plus (published: 8 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_cifar --arch WsrNet_M_1 --init_channels 45 --layers 20 --save wsrnet_m_1 --num_steps 7 --batch_size 400 --weight_decay 0.0007 --data "$DATA" --runs "$RUNS" "$@"
