"""Entropy models: what turns latents into integer probability tables, exactly."""
