#!/usr/bin/env bash
# Repeats of images_pathnet.py over all cores, a seed each:
#   ./auto_images_pathnet.sh                        # 20 repeats
#   ./auto_images_pathnet.sh 10 --tasks=photos/:0-4,photos/:5-9 --size=32
# Started again, it goes on where it stopped. See common/batch.sh.
here=$(dirname "$(readlink -f "$0")")
# sbatch runs a copy that lies elsewhere, and says where it was called.
[[ -e $here/common/batch.sh ]] || here=${SLURM_SUBMIT_DIR:-$here}
if [[ ! -e $here/common/batch.sh ]]; then
  echo "auto_images_pathnet.sh: submit it from the folder that it is in: $here is not" >&2
  exit 2
fi
exec "$here/common/batch.sh" images 20 "$@"
