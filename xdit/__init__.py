"""Stands in for xDiT's package name: `python -m xdit.run` is `atelier run`."""
