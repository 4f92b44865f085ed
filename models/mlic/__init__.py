"""Slice-wise entropy modelling after MLICv2, with the slices grouped as ISCS has them, in exact integers.

Each module stands for itself and can be left out: token mixing blocks for the transforms; checkerboard
attention, global contexts, channel reweighting, hyperprior-guided correlation, residual prediction and
selective compression for the entropy model. Sources: MLIC++ (arXiv 2307.15421), MLICv2 (arXiv 2504.19119) and
ISCS (arXiv 2509.16853). No code of MLICv2 or ISCS is public, so these are this library's readings of them,
changed wherever integer arithmetic asks for it; every module says where it departs.
"""
