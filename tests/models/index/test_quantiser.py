"""SimVQ: nearest codes, gradients, and codes that stay in use."""

import torch

from latentpress.models.index.quantiser import LinearCodebook, nearest_codes, unit_vectors


def test_codes_map_to_themselves() -> None:
    torch.manual_seed(0)
    quantiser = LinearCodebook(32, 8)
    codes = quantiser.codebook().detach()
    found = quantiser(codes * 3)
    assert found.indexes.tolist() == list(range(32))
    torch.testing.assert_close(found.vectors, codes * 8**0.5)
    assert found.error.abs().max() < 1e-6


def test_gradients_pass_to_the_vectors_and_to_the_codebook() -> None:
    torch.manual_seed(0)
    quantiser = LinearCodebook(32, 8)
    x = torch.randn(10, 8, requires_grad=True)
    weight = torch.randn(10, 8)
    found = quantiser(x)
    (found.vectors * weight).sum().backward(retain_graph=True)
    directions = unit_vectors(x.detach().requires_grad_())
    # As if nothing had been quantised.
    y = x.detach().requires_grad_()
    (unit_vectors(y) * weight * 8**0.5).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert directions.shape == x.shape
    assert quantiser.mixing.grad is None
    found.error.sum().backward()
    assert quantiser.mixing.grad.abs().max() > 0


def test_evenness_is_one_for_all_codes_and_small_for_one() -> None:
    torch.manual_seed(0)
    quantiser = LinearCodebook(64, 4)
    codes = quantiser.codebook().detach()
    even, single = quantiser.evenness(codes.repeat(3, 1)), quantiser.evenness(codes[:1].repeat(192, 1))
    assert even > 0.95
    assert single < even - 0.2


def test_training_brings_codes_back_into_use() -> None:
    """Vectors from a narrow cone use few codes; the reward for evenness spreads them over nearly all."""
    torch.manual_seed(0)
    quantiser = LinearCodebook(64, 4)
    head = torch.nn.Linear(16, 4)
    torch.nn.init.constant_(head.bias, 2.0)
    x = torch.randn(2048, 16)
    before = len(quantiser(head(x)).indexes.unique())
    optimizer = torch.optim.Adam([*head.parameters(), quantiser.mixing], lr=0.02)
    for _ in range(150):
        vectors = head(x)
        loss = quantiser(vectors).error.mean() - 3 * quantiser.evenness(vectors)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = len(quantiser(head(x)).indexes.unique())
    assert before < 48
    assert after >= 0.95 * 64


def test_nearest_codes_are_the_first_of_the_nearest_whatever_the_number_of_vectors() -> None:
    torch.manual_seed(3)
    codes = unit_vectors(torch.randn(40, 4)).repeat(2, 1)
    directions = unit_vectors(torch.randn(3, 700, 4))
    found = nearest_codes(directions, codes)
    assert torch.equal(found, (directions @ codes.mT).argmax(dim=-1))
    assert int(found.max()) < 40
    assert nearest_codes(directions[0, 0], codes).shape == ()
