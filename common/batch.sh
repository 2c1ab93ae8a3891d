#!/usr/bin/env bash
# What the auto_*.sh scripts share: finds Python, and leaves the rest to it.
#
#   batch.sh SCRIPT DEFAULT_REPEATS [REPEATS] [flags of SCRIPT]
#
# See supervised/batch.py, or call an auto_*.sh with --help.
set -euo pipefail
root=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
# -P: modules come from the project, not from the folder where the user stands.
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
exec "$python" -P -m supervised.batch "$@"
