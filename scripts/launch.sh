# The other scripts source this file. `launch MODULE ARGUMENTS` starts a program on one CPU, on one GPU, or as NGPU
# processes under torchrun. These variables come from the environment:
#
#   DATA, RUNS                folder of the data set, folder of all run directories
#   NGPU                      number of processes (on each machine)
#   NNODES, RDZV_ENDPOINT     number of machines, HOST:PORT of the first one (scripts/slurm/run.sbatch sets both)
#
# Relative paths in these variables are relative to the caller's folder; paths in flags to the repository's root.
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
unset CDPATH  # cd would look there, and print where it went
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA="${DATA:-data}"
RUNS="${RUNS:-runs}"
PYTHON="$(bash scripts/setup.sh)"

# The program replaces the shell, so that signals reach it. A script that has further commands calls
# ( launch MODULE ARGUMENTS ), in a shell of its own.
launch() {
    [ "$NGPU" -gt 1 ] || [ "$NNODES" -gt 1 ] || exec "$PYTHON" -m "$@"
    if [ "${SLURM_NODEID:-0}" = 0 ]; then
        # One process checks the input before several start, and reports what is wrong in one sentence (exit code 2).
        # It also downloads the data set.
        "$PYTHON" -m "$@" --dry_run >/dev/null
    fi
    local machines=(--standalone)
    if [ "$NNODES" -gt 1 ]; then
        # The timeout is one hour, because the other machines wait while the first one downloads.
        machines=(--nnodes="$NNODES" --rdzv_backend=c10d --rdzv_id="${RDZV_ID:-${SLURM_JOB_ID:-wsrnas}}"
                  --rdzv_endpoint="$RDZV_ENDPOINT" --rdzv_conf=join_timeout=3600,read_timeout=3600)
    fi
    local cores threads
    cores="$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)"  # macOS has the second
    threads=$((cores / NGPU))
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
    # After a signal, the processes have this many seconds to finish a step and save. Torchrun's default is 30.
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-240}"
    exec "$PYTHON" -m wsrnas.runtime.launcher "${machines[@]}" --nproc_per_node="$NGPU" -m "$@"
}
