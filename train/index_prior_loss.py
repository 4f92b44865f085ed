"""Bits that the index prior spends, at random states of knowledge and along the coding schedule."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from latentpress.models.index.codebooks import GROUP
from latentpress.models.index.granularity import GrainMap
from latentpress.models.index.prior import STEPS, UNKNOWN, GrainIndexes, GroupedLogits, IndexPrior, step_map

_NEVER = -1e4
"""Logit of what cannot occur."""


class Knowledge(NamedTuple):
    """What is known and what is asked for at one granularity, each ``(B, H, W)`` bool.

    Attributes:
        known: Known when the indices asked for are predicted.
        asked: The indices to predict.
        above: Known when the next finer granularity is predicted.
    """

    known: Tensor
    asked: Tensor
    above: Tensor


def index_bits(logits: GroupedLogits, rows: Tensor, first: Tensor, size: Tensor) -> Tensor:
    """Bits of indices under predicted distributions.

    Args:
        logits: Of groups and members, ``(B, H, W, ...)``.
        rows: ``(B, H, W)`` row of each index in the table of the logits' members.
        first: ``(B,)`` first row of each picture's book, a multiple of 32.
        size: ``(B,)`` its number of codes.

    Returns:
        ``(B, H, W)``, float32.
    """
    natural = math.log(2)
    groups, members = (x.float() * natural for x in logits)
    first, size = (x[:, None, None, None] for x in (first, size))
    # Comparisons and sums instead of gathers, which the compiler fuses into one pass over the logits.
    group = torch.arange(groups.shape[-1], device=rows.device)
    groups = torch.where((group * GROUP >= first) & (group * GROUP < first + size), groups, _NEVER)
    chosen = group == (rows // GROUP)[..., None]
    group_bits = torch.logsumexp(groups, dim=-1) - torch.where(chosen, groups, 0).sum(dim=-1)
    row = torch.arange(members.shape[-1], device=rows.device)
    members = torch.where(row < first + size, members, _NEVER)
    normaliser = torch.logsumexp(members.unflatten(-1, (-1, GROUP)), dim=-1)
    normaliser = torch.where(chosen, normaliser, 0).sum(dim=-1)
    member_bits = normaliser - torch.where(row == rows[..., None], members, 0).sum(dim=-1)
    return (group_bits + member_bits) / natural


def predict_bits(
    prior: IndexPrior,
    indexes: GrainIndexes,
    grains: GrainMap,
    book: Tensor,
    knowledge: tuple[Knowledge, Knowledge, Knowledge],
    with_summary: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Bits of all indices at each granularity, given what is known; only those asked for mean anything.

    Args:
        prior: The predictor.
        indexes: The true indices.
        grains: The map.
        book: ``(B,)`` numbers of the coarse indices' books.
        knowledge: Of each granularity, coarse first.
        with_summary: ``(B,)`` 1 where the coarse features may see what is known below, else 0.
    """

    def known(index: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, index, UNKNOWN)

    coarse, medium, fine = knowledge
    summary = prior.summary(known(indexes.medium, medium.known), known(indexes.fine, fine.known), grains)
    summary = summary * with_summary[:, None, None, None]
    asked = prior.coarse_features(known(indexes.coarse, coarse.known), grains, book, summary)
    above = prior.coarse_features(known(indexes.coarse, coarse.above), grains, book, summary)
    medium_asked = prior.medium_features(known(indexes.medium, medium.known), grains, above)
    medium_above = prior.medium_features(known(indexes.medium, medium.above), grains, above)
    fine_asked = prior.fine_features(known(indexes.fine, fine.known), grains, medium_above)

    first, size = torch.zeros_like(book), torch.zeros_like(book)
    for number, entry in enumerate(prior.books):
        first = first + (book == number) * entry.first_row
        size = size + (book == number) * entry.size
    nothing, all_codes = torch.zeros_like(book), torch.full_like(book, prior.codes)
    with torch.autocast(asked.device.type, enabled=False):
        return (
            index_bits(prior.coarse_head(asked.float()), indexes.coarse + first[:, None, None], first, size),
            index_bits(prior.medium_head(medium_asked.float()), indexes.medium, nothing, all_codes),
            index_bits(prior.fine_head(fine_asked.float()), indexes.fine, nothing, all_codes),
        )


def random_knowledge(reference: Tensor, blind: Tensor, repair: Tensor) -> Knowledge:
    """A random state of knowledge for every picture.

    Args:
        reference: ``(B, H, W)`` of the granularity's shape.
        blind: ``(B, 1, 1)`` bool: nothing is known and everything asked for.
        repair: ``(B, 1, 1)`` bool: some indices, anywhere, are lost and asked for.
    """
    device, count = reference.device, reference.shape[0]
    steps = step_map(*reference.shape[1:], device=device)
    step = torch.randint(STEPS, (count, 1, 1), device=device)
    lost = torch.rand(reference.shape, device=device) < 0.05 + 0.4 * torch.rand((count, 1, 1), device=device)
    known = torch.where(repair, ~lost, steps < step) & ~blind
    asked = torch.where(repair, lost, steps == step) | blind
    return Knowledge(known, asked, known | (~repair & ~blind))


def masks_of(grains: GrainMap) -> tuple[Tensor, Tensor, Tensor]:
    """Where there are indices of each granularity, coarse first."""
    return grains.coarse_mask(), grains.medium_mask(), grains.fine_mask()


@torch.no_grad()
def schedule_bits(prior: IndexPrior, indexes: GrainIndexes, grains: GrainMap, book: Tensor) -> Tensor:
    """Bits of all indices of pictures, coded step by step; a scalar."""
    masks = masks_of(grains)
    total = torch.zeros((), device=book.device, dtype=torch.float64)
    for step in range(STEPS):
        maps = [step_map(*mask.shape[1:], device=mask.device).expand_as(mask) for mask in masks]
        knowledge = tuple(Knowledge(m < step, m == step, torch.ones_like(m, dtype=torch.bool)) for m in maps)
        bits = predict_bits(
            prior, indexes, grains, book, knowledge, torch.zeros(len(book), device=book.device)
        )
        for found, state, mask in zip(bits, knowledge, masks, strict=True):
            total = total + torch.where(state.asked & mask, found, 0).double().sum()
    return total


@torch.no_grad()
def blind_bits(prior: IndexPrior, indexes: GrainIndexes, grains: GrainMap, book: Tensor) -> Tensor:
    """Bits of all indices of pictures when each is coded without knowing any other; a scalar."""
    masks = masks_of(grains)
    knowledge = tuple(
        Knowledge(nothing, ~nothing, nothing) for nothing in (torch.zeros_like(mask) for mask in masks)
    )
    bits = predict_bits(prior, indexes, grains, book, knowledge, torch.zeros(len(book), device=book.device))
    return sum(torch.where(mask, found, 0).double().sum() for found, mask in zip(bits, masks, strict=True))
