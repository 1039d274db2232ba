"""EnCodec's decoder for a CPU: one clip at a time, convolutions as matrix products in place.

MusicGen's codec spends its time on few channels and many samples. There a convolution of k taps is
k products of a small matrix with the same samples, shifted, added up where they lie; an upsampling
by r is two products, since its kernel spans two frames of r samples. A clip alone stays in the
cache, and its wave does not depend on its neighbours.

**Source:** Defossez et al. 2022, "High Fidelity Neural Audio Compression" (section 3.1: SEANet).
"""

import math
from collections.abc import Callable

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
        return _convolution(layer)
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
    """Return the exponential linear unit: exp(x) - 1 is never below x, and exp is fast."""
    return torch.maximum(x, x.clamp(max=0).exp_().sub_(1))


def _convolution(layer: EncodecConv1d) -> Layer:
    conv = layer.conv
    taps = conv.weight.detach().permute(2, 0, 1).contiguous()  # (k, out, in)
    bias, dilation = conv.bias.detach()[:, None], conv.dilation[0]
    total = (len(taps) - 1) * dilation
    right = 0 if layer.causal else total // 2
    pads, mode = (total - right, right), layer.pad_mode

    def convolve(x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        if total:
            x = layer._pad1d(x[None], pads, mode=mode)[0]
        y = torch.addmm(bias, taps[0], x[:, :length])
        for tap in range(1, len(taps)):
            start = tap * dilation
            y.addmm_(taps[tap], x[:, start : start + length])
        return y

    return convolve


def _upsampling(layer: EncodecConvTranspose1d) -> Layer:
    conv, stride = layer.conv, layer.conv.stride[0]
    channels = conv.out_channels
    by_phase = conv.weight.detach().permute(1, 2, 0)  # (out, 2r, in)
    own, last = (half.flatten(0, 1) for half in by_phase.split(stride, dim=1))  # (out * r, in)
    bias = conv.bias.detach().repeat_interleave(stride)[:, None]
    right = math.ceil(stride * layer.trim_right_ratio) if layer.causal else stride // 2

    def upsample(x: torch.Tensor) -> torch.Tensor:
        x = F.pad(x, (1, 1))
        y = torch.addmm(bias, own, x[:, 1:]).addmm_(last, x[:, :-1])
        y = y.unflatten(0, (channels, stride)).transpose(1, 2).flatten(1)
        return y[:, stride - right : y.shape[1] - right]

    return upsample


def _residual(layer: EncodecResnetBlock) -> Layer:
    block = [_prepared(part) for part in layer.block]
    shortcut = (
        _convolution(layer.shortcut) if isinstance(layer.shortcut, EncodecConv1d) else nn.Identity()
    )

    def add(x: torch.Tensor) -> torch.Tensor:
        y = x
        for part in block:
            y = part(y)
        return y.add_(shortcut(x))

    return add
