#!/usr/bin/env bash
# RACL on ImageNet by Fast-AT: 12.0 M parameters (published: 4 GPUs).
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.train_imagenet --recipe racl --save ImgNet_RACL --data "$DATA" --runs "$RUNS" "$@"
