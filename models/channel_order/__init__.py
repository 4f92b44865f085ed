"""Which latent channels matter, read off a trained model's parameters, and how to reorder them.

The idea is ISCS (arXiv 2509.16853): weight variance, bias magnitude and pairwise correlation of the latent
channels give a saliency, a core of salient channels and auxiliary channels that lean on them. The paper gives
no formula, so the readings here are this library's own, held against brute-force ablation.
"""
