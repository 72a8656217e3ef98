#!/usr/bin/env bash
# A fair race:
#
#   bash scripts/compare.sh --archs WsrNet_Basic,RACL,resnet18,random:2 --budget params=4.53M --recipe strong --seeds 3
#
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them). Started several times,
# or as the tasks of a Slurm array, the processes share the jobs.
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch retrain.compare --data "$DATA" --runs "$RUNS" "$@"
