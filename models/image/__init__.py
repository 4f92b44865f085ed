"""Networks of the image family."""
