# Sourced by the other scripts: `launch MODULE ARGUMENTS` on one CPU, one GPU, or NGPU processes under torchrun.
# DATA (folder of the data set), RUNS (folder of all run directories) and NGPU come from the environment.
# Relative paths are meant from where the caller stands.
absolute() { case "$1" in "" | /* | "~"*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
DATA="$(absolute "${DATA:-}")"
RUNS="$(absolute "${RUNS:-}")"
NGPU="${NGPU:-1}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
DATA="${DATA:-data}"
RUNS="${RUNS:-runs}"
PYTHON="$(bash scripts/setup.sh)"

launch() {
    if [ "$NGPU" -gt 1 ]; then
        "$PYTHON" -m torch.distributed.run --standalone --nproc_per_node="$NGPU" -m "$@"
    else
        "$PYTHON" -m "$@"
    fi
}
