"""What can be run on files: the ``latentpress`` command, the same verbs as scripts, and the benchmark."""
