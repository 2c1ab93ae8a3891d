"""Results as tables and pictures."""

import os

# Pictures are drawn on the Agg canvas, whatever the user's shell says. A backend that it
# names need not be installed here, such as that of notebooks, and stops matplotlib's import.
os.environ["MPLBACKEND"] = "agg"
