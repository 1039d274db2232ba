"""EnCodec's decoder for a CPU: one clip at a time, convolutions as matrix products in place.

MusicGen's codec spends its time on few channels and many samples. There a convolution of k taps is
k products of a small matrix with the same samples, shifted, added up where they lie; an upsampling
by r is two products, since its kernel spans two frames of r samples. A clip alone stays in the
cache, and its wave does not depend on its neighbours.

**Source:** Defossez et al. 2022, "High Fidelity Neural Audio Compression" (section 3.1: SEANet).
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import (
    EncodecConv1d,
    EncodecConvTranspose1d,
    EncodecLSTM,
    EncodecResnetBlock,
)

_LOG2_E = math.log2(math.e)
_FEW = 32  # channels

Layer = Callable[[torch.Tensor], torch.Tensor]  # [C, L] to [C', L']


class Decoder:
    """The decoder of an EncodecModel, its weights laid out once."""

    def __init__(self, codec: EncodecModel):
        """Prepare the layers.

        Raises:
            TypeError: the codec normalises over time (EnCodec of 48 kHz, not MusicGen's).
        """
        if codec.config.norm_type != "weight_norm":
            raise TypeError(f"a codec with norm_type {codec.config.norm_type} is not MusicGen's")
        self.quantizer = codec.quantizer
        self.layers = [_prepared(layer) for layer in codec.decoder.layers]

    def play(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the wave [channels, samples] float32 of one clip's codes [K, T]."""
        x = self.quantizer.decode(codes[:, None])[0]
        for layer in self.layers:
            x = layer(x)
        return x


def _prepared(layer: nn.Module) -> Layer:
    if isinstance(layer, EncodecConv1d):
        return _Convolution(layer)
    if isinstance(layer, EncodecConvTranspose1d):
        return _upsampling(layer)
    if isinstance(layer, EncodecResnetBlock):
        return _residual(layer)
    if isinstance(layer, EncodecLSTM):
        return lambda x: layer(x[None])[0]
    if isinstance(layer, nn.ELU) and layer.alpha == 1:
        return _elu
    raise TypeError(f"{type(layer).__name__} is no layer of EnCodec's decoder")


def _elu(x: torch.Tensor) -> torch.Tensor:
    """Return the exponential linear unit; exp(x) - 1 is never below x.

    torch's exp2 takes a third of the time of its exp, and its elu, made of expm1, still more.
    """
    y = x.clamp(max=0).mul_(_LOG2_E).exp2_().sub_(1)
    return torch.maximum(x, y, out=y)


class _Convolution:
    """A convolution of stride 1, its taps as matrices."""

    def __init__(self, layer: EncodecConv1d):
        conv = layer.conv
        self.taps = conv.weight.detach().permute(2, 0, 1).contiguous()  # (k, out, in)
        self.bias, self.dilation = conv.bias.detach()[:, None], conv.dilation[0]
        total = (len(self.taps) - 1) * self.dilation
        right = 0 if layer.causal else total // 2
        self.pads, self.pad, self.mode = (total - right, right), layer._pad1d, layer.pad_mode

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.add(x, self.bias.expand(-1, x.shape[1]).contiguous())

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Add to y [C', L] the convolution of x [C, L], without the bias."""
        length = x.shape[1]
        if any(self.pads):
            x = self._padded(x)
        for tap, weight in enumerate(self.taps):
            start = tap * self.dilation
            y.addmm_(weight, x[:, start : start + length])
        return y

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        (left, right), length = self.pads, x.shape[1]
        if self.mode != "reflect" or length <= left + right:
            return self.pad(x, self.pads, self.mode)
        y = x.new_empty(len(x), left + length + right)  # torch's own takes ten times as long
        y[:, left : left + length] = x
        y[:, :left] = x[:, 1 : 1 + left].flip(1)
        y[:, left + length :] = x[:, length - 1 - right : length - 1].flip(1)
        return y


def _upsampling(layer: EncodecConvTranspose1d) -> Layer:
    conv, stride = layer.conv, layer.conv.stride[0]
    by_phase = conv.weight.detach().permute(0, 2, 1)  # (in, 2r, out)
    own, last = (half.flatten(1) for half in by_phase.split(stride, dim=1))  # (in, r * out)
    bias = conv.bias.detach().repeat(stride)
    right = math.ceil(stride * layer.trim_right_ratio) if layer.causal else stride // 2

    def upsample(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (1, 1)).t()  # (1 + L + 1, in): rows come out in order of time
        y = torch.addmm(bias, x[1:], own).addmm_(x[:-1], last).view(-1, conv.out_channels)
        return _transposed(y[stride - right : len(y) - right])

    return upsample


def _transposed(x: torch.Tensor) -> torch.Tensor:
    if x.shape[1] < _FEW:  # torch's own is for squarer ones
        return torch.from_numpy(np.ascontiguousarray(x.numpy().T))
    return x.t().contiguous()


def _residual(layer: EncodecResnetBlock) -> Layer:
    block = [_prepared(part) for part in layer.block]
    shortcut = None
    if isinstance(layer.shortcut, EncodecConv1d):
        shortcut = _Convolution(layer.shortcut)
        block[-1].bias = block[-1].bias + shortcut.bias

    def add(x: torch.Tensor) -> torch.Tensor:
        y = x
        for part in block:
            y = part(y)
        return y.add_(x) if shortcut is None else shortcut.add(x, y)

    return add
