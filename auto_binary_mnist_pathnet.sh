#!/usr/bin/env bash
# Repeats of binary_mnist_pathnet.py over all cores, a seed each:
#   ./auto_binary_mnist_pathnet.sh                      # 1,000 repeats
#   ./auto_binary_mnist_pathnet.sh 100 --a1=4 --a2=5 --b1=6 --b2=7
# Started again, it goes on where it stopped. See common/batch.sh.
here=$(dirname "$(readlink -f "$0")")
# sbatch runs a copy that lies elsewhere, and says where it was called.
[[ -e $here/common/batch.sh ]] || here=${SLURM_SUBMIT_DIR:-$here}
if [[ ! -e $here/common/batch.sh ]]; then
  echo "auto_binary_mnist_pathnet.sh: submit it from the folder that it is in: $here is not" >&2
  exit 2
fi
exec "$here/common/batch.sh" binary_mnist 1000 "$@"
