#!/usr/bin/env bash
# The whole job in minutes on two CPU cores: search a cell, retrain it and the unsearched cell, compare them.
#
#   bash scripts/quickstart.sh                                       handwritten digits, nothing to download
#   DATASET=folder DATA=/path/to/images bash scripts/quickstart.sh   train/ and test/ (or val/) of class folders
#   DATASET=cifar10 bash scripts/quickstart.sh                       downloads CIFAR-10 into DATA (default: data)
#
# After a stop, the same command resumes. RUNS names the folder of the results (default: runs).
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{ s/^# \{0,1\}//p; }' "$0"; exit ;; esac
source "$(dirname "$0")/launch.sh"
DATASET="${DATASET:-digits}"

common=(--preset tiny --dataset "$DATASET" --data "$DATA" --runs "$RUNS")
evaluation=(--dataset "$DATASET" --data "$DATA" --max_test 160 --batch_size 40 --check_images 50)
search=()
retrain=()
if [ "$DATASET" != digits ]; then
    # Smaller noise fools networks on photographs than on digits. A few thousand images are enough here.
    search=(--max_train 2000 --max_validation 300 --epsilon 0.03 --strengths 0.03 0.06 0.09 0.12)
    retrain=(--max_train 3000 --held_out 300 --epsilon 0.03)
    evaluation=(--dataset "$DATASET" --data "$DATA" --max_test 300 --batch_size 50 --check_images 50)
    common+=(--download) evaluation+=(--download)  # has no effect on a folder of images
fi
name="quickstart-$DATASET"
searched="$RUNS/search/$name"

echo "1/3 search"
( launch search.wsr_nas "${common[@]}" "${search[@]}" --save "$name" )
echo "2/3 retrain the searched cell and, beside it, the initial, unsearched one"
# One thread each: a second thread does not make networks of this size faster.
threads="${OMP_NUM_THREADS:-1}"
log="$RUNS/search/$name/retrain-initial.txt"
OMP_NUM_THREADS="$threads" "$PYTHON" -m retrain.train_cifar "${common[@]}" "${retrain[@]}" \
    --arch "$searched/genotypes/initial.json" --save "$name-initial" > "$log" 2>&1 &
initial=$!
trap 'kill "$initial" 2>/dev/null || true' EXIT
( OMP_NUM_THREADS="$threads" launch retrain.train_cifar "${common[@]}" "${retrain[@]}" \
    --arch "$searched/genotype.json" --save "$name-searched" )
wait "$initial" || { tail -n 3 "$log" >&2; exit 1; }
trap - EXIT
echo "3/3 accuracy over noise strengths"
( launch retrain.evaluate "${evaluation[@]}" --model "$RUNS/retrain/$name-searched" \
    "$RUNS/retrain/$name-initial" --names searched initial )
"$PYTHON" -m wsrnas.plotting "$searched/genotype.json" "$searched/figures/genotype"
