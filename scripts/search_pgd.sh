#!/usr/bin/env bash
# Wsr-NAS with a supernet trained by PGD-7: N1, N2 = 3, 3, the search of WsrNet-Basic.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch search.wsr_nas --preset paper --adv_loss pgd --data "$DATA" --runs "$RUNS" "$@"
