# Sourced by the other scripts: `launch MODULE ARGUMENTS` on one CPU, one GPU, or NGPU processes under torchrun.
# DATA (folder of the data set), RUNS (folder of all run directories) and NGPU come from the environment; so do, for
# several machines with NGPU processes each, NNODES and RDZV_ENDPOINT (scripts/slurm/run.sbatch sets them).
# Relative paths in these are meant from where the caller stands; those in flags from the repository's root.
absolute() { case "$1" in "" | /* | "~"*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
DATA="$(absolute "${DATA:-}")"
RUNS="$(absolute "${RUNS:-}")"
NGPU="${NGPU:-1}"
NNODES="${NNODES:-1}"
[[ "$NGPU" =~ ^[1-9][0-9]*$ ]] || { echo "error: NGPU=$NGPU; expected a number of processes" >&2; exit 2; }
[[ "$NNODES" =~ ^[1-9][0-9]*$ ]] || { echo "error: NNODES=$NNODES; expected a number of machines" >&2; exit 2; }
[[ "$NNODES" = 1 || "${RDZV_ENDPOINT:-}" =~ ^.+:[0-9]+$ ]] || {
    echo "error: NNODES=$NNODES and RDZV_ENDPOINT=${RDZV_ENDPOINT:-}; expected HOST:PORT of the first machine" >&2
    exit 2
}
case "${WSRNAS_PYTHON:-}" in */*) WSRNAS_PYTHON="$(absolute "$WSRNAS_PYTHON")"; export WSRNAS_PYTHON ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA="${DATA:-data}"
RUNS="${RUNS:-runs}"
PYTHON="$(bash scripts/setup.sh)"

# The program takes the shell's place, so that signals reach it; before further commands: ( launch MODULE ARGUMENTS ).
launch() {
    [ "$NGPU" -gt 1 ] || [ "$NNODES" -gt 1 ] || exec "$PYTHON" -m "$@"
    if [ "${SLURM_NODEID:-0}" = 0 ]; then
        # Bad input is told by one process in one sentence (exit code 2) before several start; this downloads, too.
        "$PYTHON" -m "$@" --dry_run >/dev/null
    fi
    local machines=(--standalone)
    if [ "$NNODES" -gt 1 ]; then
        # An hour: the others wait while the first one downloads.
        machines=(--nnodes="$NNODES" --rdzv_backend=c10d --rdzv_id="${RDZV_ID:-${SLURM_JOB_ID:-wsrnas}}"
                  --rdzv_endpoint="$RDZV_ENDPOINT" --rdzv_conf=join_timeout=3600,read_timeout=3600)
    fi
    local threads=$(($(nproc) / NGPU))
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
    # Seconds that the processes have for a step and a checkpoint, before torchrun kills them (30 of its own accord).
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240}"
    exec "$PYTHON" -m wsrnas.runtime.launcher "${machines[@]}" --nproc_per_node="$NGPU" -m "$@"
}
