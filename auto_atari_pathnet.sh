#!/usr/bin/env bash
# A whole Atari cluster on this machine; all flags are passed on:
#   ./auto_atari_pathnet.sh --games=pong,pong --worker_hosts_num=4 --B=2 --seed=1
set -euo pipefail
here=$(dirname "$0")
python=$here/.venv/bin/python
[ -x "$python" ] || python=python3
exec "$python" "$here/atari_pathnet.py" "$@"
