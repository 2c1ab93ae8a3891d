"""The Atari script: a cluster of parameter servers, actors and one GA worker."""
