"""Settings of the experiments, one YAML file for each set of weights."""
