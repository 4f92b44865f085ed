"""What the polygon coder assumes before it has seen anything, version 0: found from decimated meshes, frozen.

A change would make old streams unreadable; a new version needs a module of its own.
"""

ALONG_SHARE = 1045
"""Of the way from the third corner to the middle, its part along the edge: in 4096ths."""

ACROSS_SHARE = 2006
"""... across the edge."""

ACROSS_LENGTH = 3767
"""What of the length of the edge is added to that."""

ACROSS_SIZE = 3600
"""... and what of the size is taken away."""

RISE = -491
"""How far out of the plane a corner is in the mean, in 4096ths of the size: below, meshes are convex."""

FREEDOM = 7
"""Degrees of freedom of the Student distributions."""

PRIOR_SPREADS = (1200, 600, 300)
"""Variances along an edge, across it and out of the plane, in 4096ths of the squared size."""

PRIOR_WEIGHT = 6
"""How many corners the assumed variances count for."""

ROUNDING_SPREAD = 12000
"""Variance of rounding, in 256ths of a step, squared."""

UNIFORM_WEIGHT = 16
"""Added to every node, of 2^24."""

EXPERTS = ((64, 64, 64), (64, 64, 4), (600, 1200, 2400))
"""Factors on the three variances, in 64ths: as the mesh has them, flat, and anywhere."""

EXPERT_TRUST = (10, 5, 2)
"""How many corners each expert is believed to have been right about."""

HABIT_PRIOR = 81920
"""Coordinates, in 4096ths, for which those used before were no likelier than others."""

NEARNESS = (2, 4, 8, 16, 32, 64)
"""Limits of the levels of how near a vertex is, in 16ths of the squared size."""

NEAR_OTHER = (1, 2)
"""A fraction of the squared size, within which another vertex is near."""

APEX_UNIT = 5
"""What a symbol adds to its count."""

BOUNDARY_UNIT = 5
"""What a symbol adds to its count."""

OLD_CORNER_COUNTS = ((60, 1),)
"""New corner of a seed, old corner."""

COLOUR_SPREADS = (400, 100, 60)
"""Variances of Y, Co and Cg around the mean of the neighbours, where Y goes to 255."""

COLOUR_WEIGHT = 6
"""How many vertices the assumed variances count for."""

COLOUR_EXPERTS = ((4, 4), (48, 32), (600, 64))
"""Factors on the usual variance and on that of the neighbours, in 64ths."""

COLOUR_EXPERT_TRUST = (8, 8, 2)
"""How many vertices each expert is believed to have been right about."""

COLOUR_FLOOR = 2730
"""Least variance, in 256ths of a step, squared."""

# fmt: off
APEX_COUNTS = (
    (58, 2, 3, 1), (47, 9, 6, 3), (34, 18, 10, 2), (29, 13, 16, 5), (38, 14, 12, 1), (36, 9, 14, 5),
    (40, 12, 12, 1), (41, 3, 18, 3), (48, 1, 14, 2), (42, 1, 17, 5), (54, 1, 9, 1), (48, 1, 12, 4),
    (47, 1, 13, 3), (42, 1, 18, 3), (26, 3, 30, 5), (26, 3, 30, 5), (30, 25, 8, 1), (27, 13, 14, 9),
    (57, 2, 4, 1), (45, 4, 13, 2), (29, 20, 13, 1), (21, 11, 25, 7), (41, 5, 16, 3), (33, 6, 15, 10),
    (43, 1, 18, 1), (39, 1, 18, 6), (49, 1, 13, 2), (40, 1, 16, 8), (46, 1, 14, 4), (42, 1, 16, 5),
    (26, 3, 30, 5), (26, 3, 30, 5), (21, 24, 18, 1), (20, 18, 17, 9), (30, 15, 17, 2), (22, 11, 21, 10),
    (55, 3, 6, 1), (44, 5, 11, 5), (34, 10, 18, 2), (35, 2, 20, 7), (40, 1, 21, 2), (35, 1, 21, 7),
    (42, 1, 19, 3), (37, 1, 18, 9), (41, 1, 19, 3), (38, 1, 19, 6), (26, 3, 30, 5), (26, 3, 30, 5),
    (24, 24, 14, 2), (15, 13, 24, 12), (18, 20, 22, 3), (23, 10, 24, 7), (22, 16, 23, 3), (17, 8, 31, 8),
    (47, 4, 11, 2), (29, 6, 21, 7), (30, 2, 28, 3), (25, 2, 28, 9), (34, 1, 26, 3), (24, 1, 25, 15),
    (35, 2, 24, 4), (28, 1, 24, 12), (33, 3, 24, 4), (26, 3, 30, 5), (11, 29, 23, 2), (14, 20, 21, 9),
    (15, 19, 25, 5), (16, 14, 29, 5), (17, 15, 28, 4), (15, 11, 27, 10), (16, 13, 30, 5), (16, 5, 36, 8),
    (26, 2, 32, 4), (19, 1, 32, 12), (22, 1, 38, 4), (15, 1, 28, 20), (24, 1, 34, 4), (16, 1, 29, 19),
    (26, 3, 30, 5), (26, 3, 30, 5), (15, 20, 25, 4), (20, 10, 27, 7), (18, 20, 23, 4), (18, 10, 28, 7),
    (13, 14, 31, 5), (11, 8, 35, 10), (12, 12, 37, 3), (16, 4, 31, 13), (13, 4, 42, 5), (14, 1, 34, 15),
    (17, 1, 43, 3), (17, 1, 28, 19), (16, 3, 41, 5), (11, 1, 31, 22), (26, 3, 30, 5), (26, 3, 30, 5),
    (15, 19, 28, 2), (17, 11, 31, 5), (20, 16, 24, 4), (15, 8, 35, 6), (12, 14, 33, 4), (11, 6, 38, 8),
    (13, 13, 34, 4), (11, 5, 34, 14), (14, 5, 40, 5), (15, 3, 27, 19), (14, 3, 42, 5), (15, 1, 27, 21),
    (18, 4, 37, 5), (16, 1, 31, 15), (26, 3, 30, 5), (26, 3, 30, 5), (2, 39, 18, 4), (5, 36, 14, 9),
    (2, 42, 16, 3), (9, 19, 28, 7), (1, 42, 20, 1), (6, 24, 27, 7), (1, 29, 30, 5), (4, 19, 35, 6),
    (1, 8, 47, 8), (1, 5, 34, 24), (1, 3, 53, 8), (2, 2, 23, 38), (1, 6, 52, 7), (4, 1, 18, 41),
    (8, 1, 45, 11), (26, 3, 30, 5),
)
# fmt: on
"""Next, previous, new, other: by levels of next and previous (8 each), and whether another is near."""

# fmt: off
BOUNDARY_COUNTS = (
    (128, 1), (128, 1), (121, 7), (121, 7), (121, 7), (121, 7), (128, 1), (125, 3), (74, 54),
    (96, 32), (121, 7), (121, 7), (122, 6), (123, 5), (83, 45), (73, 55), (4, 124), (69, 59),
)
# fmt: on
"""A triangle follows, none does: by boundaries so far (0, 1, more), ends at one, a neighbour very near."""
