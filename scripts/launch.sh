# Sourced by the other scripts: `launch MODULE ARGUMENTS` on one CPU, one GPU, or NGPU processes under torchrun.
# DATA (folder of the data set), RUNS (folder of all run directories) and NGPU come from the environment.
# Relative paths in these are meant from where the caller stands; those in flags from the repository's root.
absolute() { case "$1" in "" | /* | "~"*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
DATA="$(absolute "${DATA:-}")"
RUNS="$(absolute "${RUNS:-}")"
NGPU="${NGPU:-1}"
[[ "$NGPU" =~ ^[1-9][0-9]*$ ]] || { echo "error: NGPU=$NGPU; expected a number of processes" >&2; exit 2; }
case "${WSRNAS_PYTHON:-}" in */*) WSRNAS_PYTHON="$(absolute "$WSRNAS_PYTHON")"; export WSRNAS_PYTHON ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA="${DATA:-data}"
RUNS="${RUNS:-runs}"
PYTHON="$(bash scripts/setup.sh)"

launch() {
    if [ "$NGPU" -gt 1 ]; then
        # Bad input is told by one process in one sentence (exit code 2) before several start; this downloads, too.
        "$PYTHON" -m "$@" --dry_run >/dev/null
        "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node="$NGPU" -m "$@"
    else
        "$PYTHON" -m "$@"
    fi
}
