"""Training: Lightning modules, data, losses, metrics and the export of weights."""
