#!/usr/bin/env bash
# Repeats of binary_mnist_pathnet.py over all cores, a seed each:
#   ./auto_binary_mnist_pathnet.sh                      # 1,000 repeats
#   ./auto_binary_mnist_pathnet.sh 100 --a1=4 --a2=5 --b1=6 --b2=7
# Started again, it goes on where it stopped. See batch.sh.
exec "$(dirname "$0")/common/batch.sh" binary_mnist_pathnet.py 1000 "$@"
