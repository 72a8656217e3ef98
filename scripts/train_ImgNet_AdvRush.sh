#!/usr/bin/env bash
# AdvRush on ImageNet by Fast-AT: 12.2 M parameters (published: 4 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_imagenet --recipe advrush --save ImgNet_AdvRush --data "$DATA" --runs "$RUNS" "$@"
