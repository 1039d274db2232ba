"""Matrices that few rows are multiplied by again and again, laid out once for that.

So few rows make a product as fast as its matrix is read. On a CPU a float32 matrix is kept in
float16 where that loses nothing, since published weights often were float16 before: half the bytes,
the same numbers, sums in float32 (FBGEMM). Any other one is packed for oneDNN. Both give a row the
same bits beside any others, which the product that torch chooses does not, and are faster, for four
rows by far.
"""

import functools
import warnings

import torch
import torch.nn.functional as F

# CPU: kernels for fewer rows sum in another order, and a clip would depend on its neighbours.
_FEWEST_ROWS = 4
_USUAL_ROWS = 32  # a hint, for oneDNN


class Matrix:
    """A matrix [in, out] of a linear layer.

    Attributes:
        nbytes: of memory that a product reads.
    """

    nbytes: int

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """Return x [..., in] times the matrix."""
        raise NotImplementedError

    def add_product(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add to x [M, out] the product of y [M, in]."""
        x.add_(self.product(y))


class Plain(Matrix):
    """As it is: on a GPU, of another precision, or where torch has neither of the others."""

    def __init__(self, weight: torch.Tensor):
        """Take the weight of a linear layer, [out, in]."""
        self.weight, self.nbytes = weight.t(), weight.nbytes

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """As of `Matrix`."""
        return x @ self.weight

    def add_product(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """As of `Matrix`, in one step."""
        x.addmm_(y, self.weight)


class Half(Matrix):
    """A float32 matrix whose numbers are all those of float16."""

    def __init__(self, weight: torch.Tensor):
        """As of `Plain`."""
        self.weight = torch.fbgemm_pack_gemm_matrix_fp16(weight)
        self.nbytes = weight.nbytes // 2

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """As of `Matrix`."""
        return torch.fbgemm_linear_fp16_weight_fp32_activation(x, self.weight, None)


class Packed(Matrix):
    """Any float32 matrix, for oneDNN."""

    def __init__(self, weight: torch.Tensor):
        """As of `Plain`."""
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, _USUAL_ROWS)
        self._multiply = torch.ops.mkldnn._linear_pointwise.default
        self.nbytes = weight.nbytes

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """As of `Matrix`."""
        if x.dim() > 2 or x.shape[0] >= _FEWEST_ROWS:
            return self._multiply(x, self.weight, None, "none", [], None)
        few = x.shape[0]
        return self.product(F.pad(x, (0, 0, 0, _FEWEST_ROWS - few)))[:few]


def matrix(weight: torch.Tensor) -> Matrix:
    """Return the matrix of a linear layer's weight [out, in], on its device and of its dtype."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return Plain(weight)
    if _has_fbgemm() and torch.equal(weight.half().float(), weight):
        return Half(weight)
    return Packed(weight) if torch.backends.mkldnn.is_available() else Plain(weight)


@functools.cache
def _has_fbgemm() -> bool:
    """Try it: not on every processor, and torch says once that it will go.

    Its heir, `quantized.linear_dynamic_fp16`, is called in ten microseconds more: a sixth of all.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(Half(torch.eye(16)).product(torch.ones(1, 16)).sum() == 16)
        except (AttributeError, RuntimeError):
            return False
