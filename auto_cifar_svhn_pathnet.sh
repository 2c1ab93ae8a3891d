#!/usr/bin/env bash
# Repeats of cifar_svhn_pathnet.py over all cores, a seed each:
#   ./auto_cifar_svhn_pathnet.sh                        # 100 repeats
#   ./auto_cifar_svhn_pathnet.sh 20 --cifar_first=0 --data_dir=DIR
# Started again, it goes on where it stopped. See common/batch.sh.
here=$(dirname "$(readlink -f "$0")")
# sbatch runs a copy that lies elsewhere, and says where it was called.
[[ -e $here/common/batch.sh ]] || here=${SLURM_SUBMIT_DIR:-$here}
if [[ ! -e $here/common/batch.sh ]]; then
  echo "auto_cifar_svhn_pathnet.sh: submit it from the folder that it is in: $here is not" >&2
  exit 2
fi
exec "$here/common/batch.sh" cifar_svhn 100 "$@"
