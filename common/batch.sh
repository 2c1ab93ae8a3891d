#!/usr/bin/env bash
# What the auto_*.sh scripts share:
#
#   batch.sh SCRIPT REPEATS [OTHER_REPEATS] [flags of SCRIPT]
#
# A process for each core, each with its share of the seeds, all appending to one
# results.jsonl; repeats that it holds already are skipped. Ends with the table of all
# repeats and their pictures. From the environment:
#
#   FIRST_SEED   of the batch [0]: give each machine a range of its own
#   JOBS         processes at a time [the cores]
#   BATCH_DIR    where the results go [logs/batch__SCRIPT__FLAGS]
#
# In a Slurm array each task takes its share of the repeats and has a file of its own.
# Files of several machines merge: python plotting.py DIR/*.jsonl --generations=PNG
set -euo pipefail
cd "$(dirname "$0")/.."

script=$1 repeats=$2
shift 2
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  repeats=$1
  shift
fi
if ((repeats == 0)); then
  echo "$0: 0 repeats: give a number from 1 on" >&2
  exit 2
fi
first=${FIRST_SEED:-0} jobs=${JOBS:-$(nproc)} part=
if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
  place=$((SLURM_ARRAY_TASK_ID - ${SLURM_ARRAY_TASK_MIN:-0}))
  tasks=${SLURM_ARRAY_TASK_COUNT:-1}
  last=$((first + repeats * (place + 1) / tasks))
  first=$((first + repeats * place / tasks))
  repeats=$((last - first))
  part=-$SLURM_ARRAY_TASK_ID
  if ((repeats == 0)); then
    echo "Task $SLURM_ARRAY_TASK_ID of the array: no repeat left for it"
    exit
  fi
fi
label=$(printf '_%s' "${@//[^A-Za-z0-9.=,]/}")
folder=${BATCH_DIR:-logs/batch__${script%.py}_$label}
results=$folder/results$part.jsonl
python=.venv/bin/python
[[ -x $python ]] || python=python3
mkdir -p "$folder"

# One thread each: more would only take turns.
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
trap 'trap - TERM; kill -- -$$ 2>/dev/null' TERM
((jobs <= repeats)) || jobs=$repeats
for ((job = 0; job < jobs; job++)); do
  from=$((first + repeats * job / jobs))
  to=$((first + repeats * (job + 1) / jobs))
  "$python" "$script" "$@" --seed=$from --runs=$((to - from)) \
    --results="$results" --log_dir="$folder" &
done
status=0
for ((job = 0; job < jobs; job++)); do
  wait -n || status=$?
done
((status == 0)) || exit "$status"
pictures=()
for picture in generations curves accuracies usage retention; do
  pictures+=("--$picture=$folder/$picture$part.png")
done
"$python" plotting.py "$results" "${pictures[@]}"
echo "Results: $results"
