#!/usr/bin/env bash
# The whole job in minutes on two CPU cores: let a strategy search a table, where what it finds is known; then search a
# cell, retrain it and the unsearched cell, compare them.
#
#   bash scripts/quickstart.sh                                       handwritten digits, nothing to download
#   DATASET=folder DATA=/path/to/images bash scripts/quickstart.sh   train/ and test/ (or val/) of class folders
#   DATASET=cifar10 bash scripts/quickstart.sh                       downloads CIFAR-10 into DATA (default: data)
#
# TABLE names a table of measured architectures for the first step (docs/SEARCH.md; default: a synthetic one).
# After a stop, the same command resumes. RUNS names the folder of the results (default: runs).
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,/^[^#]/{ s/^# \{0,1\}//p; }' "$0"; exit ;; esac
source "$(dirname "$0")/launch.sh"
DATASET="${DATASET:-digits}"

common=(--preset tiny --dataset "$DATASET" --data "$DATA" --runs "$RUNS")
strengths=(0.03 0.1 0.17 0.25)
limits=(--max_test 160 --batch_size 40)
search=()
retrain=()
if [ "$DATASET" != digits ]; then
    # Smaller noise fools networks on photographs than on digits. A few thousand images are enough here.
    search=(--max_train 2000 --max_validation 300 --epsilon 0.03 --strengths 0.03 0.06 0.09 0.12)
    retrain=(--max_train 3000 --held_out 300 --epsilon 0.03)
    limits=(--max_test 300 --batch_size 50)
    common+=(--download) limits+=(--download)  # has no effect on a folder of images
fi
name="quickstart-$DATASET"
mkdir -p "$RUNS/tabular"
searched="$RUNS/search/$name"

echo "1/4 does a search find? a table with known accuracies, among graphs of one size"
"$PYTHON" -m search.tabular --table "${TABLE:-demo}" --size_class 18:20 --strategy wsr --queries 25 50 --seeds 4 \
    --out "$RUNS/tabular/$name" > "$RUNS/tabular/$name.txt"
echo "2/4 search a cell on $DATASET"
( launch search.wsr_nas "${common[@]}" "${search[@]}" --save "$name" )
echo "3/4 retrain the searched cell and, beside it, the initial, unsearched one"
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
echo "4/4 accuracy over noise strengths"
( launch retrain.evaluate --dataset "$DATASET" --data "$DATA" --runs "$RUNS" "${limits[@]}" --attacks pgd-20 \
    --strengths "${strengths[@]}" --checks quick --check_images 50 --model "$RUNS/retrain/$name-searched" \
    "$RUNS/retrain/$name-initial" --names searched initial )
"$PYTHON" -m wsrnas.report.last_screen "$RUNS" "$name"
