#!/usr/bin/env bash
# WsrNet-Basic on ImageNet by Fast-AT: 13.2 M parameters (published: 4 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_imagenet --recipe wsrnet-basic --save ImgNet_WsrNet_basic --data "$DATA" --runs "$RUNS" "$@"
