"""Products with matrices laid out once: exact, and a row's bits do not depend on its neighbours."""

import pytest
import torch

from conceptcaps import matrices
from conceptcaps.matrices import Half, Packed, Plain, matrix

SIZES = [(192, 576), (768, 192), (24, 40), (4096, 1024)]  # in, out


def weight_of(inward: int, outward: int, *, half: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(inward)
    weight = torch.randn(outward, inward, generator=generator) / inward**0.5
    return weight.half().float() if half else weight


def rows_of(width: int, count: int = 70) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=[1, 2])
def threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_product_is_as_exact_as_float32(size, half):
    """Rows rounded to float16, or sums in it, would be a thousand times further off."""
    weight, x = weight_of(*size, half=half), rows_of(size[0])
    expected = x.double() @ weight.double().t()
    found = matrix(weight).product(x).double()
    assert (found - expected).abs().max() < 1e-6 * size[0] ** 0.5
    total = torch.ones(70, size[1])
    matrix(weight).add_product(total, x)
    torch.testing.assert_close(total.double() - 1, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_a_row_is_bitwise_the_same_beside_any_others(size, half, threads):
    kept, x = matrix(weight_of(*size, half=half)), rows_of(size[0])
    whole = kept.product(x)
    for count in [*range(1, 18), 31, 32, 33, 64]:
        for first in (0, 1, 5):
            some = kept.product(x[first : first + count].contiguous())
            assert torch.equal(some, whole[first : first + count]), (count, first)


def test_a_matrix_is_kept_in_half_the_memory_only_if_nothing_is_lost():
    exact = weight_of(24, 40, half=True)
    assert isinstance(matrix(exact), Half)
    for number in (1 / 3, 1e5, 1e-9):  # too fine, too large, too small for float16
        other = exact.clone()
        other[3, 7] = number
        assert isinstance(matrix(other), Packed)
        x = torch.zeros(1, 24)
        x[0, 7] = 1
        assert matrix(other).product(x)[0, 3] == torch.tensor(number)
    assert 2 * matrix(exact).nbytes == matrix(other).nbytes == exact.nbytes


def test_other_precisions_and_processors_are_served_as_they_are(monkeypatch):
    weight = weight_of(24, 40, half=True)
    kept = matrix(weight.bfloat16())
    assert isinstance(kept, Plain)
    assert kept.product(rows_of(24).bfloat16()).dtype == torch.bfloat16
    monkeypatch.delattr(torch, "fbgemm_pack_gemm_matrix_fp16")  # as one day, or on another CPU
    matrices._has_fbgemm.cache_clear()
    assert isinstance(matrix(weight), Packed)
    matrices._has_fbgemm.cache_clear()


def test_a_batch_of_texts_is_one_product():
    weight = weight_of(24, 40, half=False)
    x = rows_of(24, count=6).view(2, 3, 24)
    assert torch.equal(
        matrix(weight).product(x), matrix(weight).product(x.view(6, 24)).view(2, 3, 40)
    )
