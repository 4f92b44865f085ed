"""Networks in plain torch: they know neither bytes nor training."""
