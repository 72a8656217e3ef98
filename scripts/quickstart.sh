#!/usr/bin/env bash
# The whole job in minutes on two CPU cores: search a cell, retrain it and the unsearched one, compare their robustness.
#
#   bash scripts/quickstart.sh                                       handwritten digits, nothing to download
#   DATASET=folder DATA=/path/to/images bash scripts/quickstart.sh   train/ and test/ (or val/) of class folders
#   DATASET=cifar10 bash scripts/quickstart.sh                       downloads CIFAR-10 into DATA (default: data)
#
# Stopped and started again, it continues. RUNS names the folder of the results (default: runs).
set -euo pipefail
source "$(dirname "$0")/launch.sh"
DATASET="${DATASET:-digits}"

common=(--preset tiny --dataset "$DATASET" --data "$DATA" --runs "$RUNS")
evaluation=(--dataset "$DATASET" --data "$DATA")
search=()
retrain=()
if [ "$DATASET" != digits ]; then
    # Photographs yield to smaller noise than the digits, and the sets are larger: a few thousand images are enough here.
    search=(--max_train 2000 --epsilon 0.03 --strengths 0.03 0.06 0.09 0.12)
    retrain=(--max_train 3000 --epsilon 0.03)
    evaluation+=(--max_test 500)
    case "$DATASET" in cifar10 | cifar100 | svhn) common+=(--download) evaluation+=(--download) ;; esac
fi
name="quickstart-$DATASET"
searched="$RUNS/search/$name"

echo "1/4 search"
launch search.wsr_nas "${common[@]}" "${search[@]}" --save "$name"
echo "2/4 retrain the searched cell"
launch retrain.train_cifar "${common[@]}" "${retrain[@]}" --arch "$searched/genotype.json" --save "$name-searched"
echo "3/4 retrain the initial, unsearched cell"
launch retrain.train_cifar "${common[@]}" "${retrain[@]}" --arch "$searched/genotypes/initial.json" --save "$name-initial"
echo "4/4 accuracy over noise strengths"
launch retrain.evaluate "${evaluation[@]}" --checkpoint "$RUNS/retrain/$name-searched" "$RUNS/retrain/$name-initial" \
    --names searched initial
"$PYTHON" -m wsrnas.plotting "$searched/genotype.json" "$searched/figures/genotype"
