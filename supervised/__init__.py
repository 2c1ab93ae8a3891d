"""The supervised task scripts: data, tournaments, controls, what is recorded."""
