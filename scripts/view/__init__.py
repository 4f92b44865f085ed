"""``latentpress view``: a bench that does the work, a server on the loopback interface, a page."""
