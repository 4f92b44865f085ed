"""Networks of the field family."""
