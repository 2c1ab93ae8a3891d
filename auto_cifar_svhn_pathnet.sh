#!/usr/bin/env bash
# Repeats of cifar_svhn_pathnet.py over all cores, a seed each:
#   ./auto_cifar_svhn_pathnet.sh                        # 100 repeats
#   ./auto_cifar_svhn_pathnet.sh 20 --cifar_first=0 --data_dir=DIR
# Started again, it goes on where it stopped. See batch.sh.
exec "$(dirname "$0")/common/batch.sh" cifar_svhn_pathnet.py 100 "$@"
