#!/usr/bin/env bash
# RNAS: search under a bound on the vulnerability of the features. Presets: rnas-h (tighter), rnas-l (looser), tiny.
# NGPU, DATA and RUNS come from the environment; further flags are passed on (--help lists them).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
launch search.rnas --preset paper --data "$DATA" --runs "$RUNS" "$@"
