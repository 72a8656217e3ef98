#!/usr/bin/env bash
# Make the environment with the test tools and run the tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON="$(bash scripts/setup.sh --dev)"
"$PYTHON" -m pytest -q -n auto "$@"
