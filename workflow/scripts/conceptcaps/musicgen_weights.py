"""The weights of a MusicGen decoder as the engine wants them: few and large matrices."""

from dataclasses import dataclass

import torch
from transformers import MusicgenForConditionalGeneration

from conceptcaps.matrices import Matrix, matrix

Norm = tuple[torch.Tensor, torch.Tensor, float]  # weight, bias, epsilon


@dataclass
class Layer:
    """Weights of one decoder layer of width D."""

    norms: list[Norm]  # before self-attention, cross-attention, feed-forward
    qkv: Matrix  # D to 3D
    out: Matrix
    cross_q: Matrix
    cross_kv: Matrix  # D to 2D
    cross_out: Matrix
    fc1: Matrix
    fc2: Matrix


@dataclass
class Weights:
    """A whole decoder of K codebooks with V codes, and the start token V."""

    embedding: torch.Tensor  # [K * (V + 1), D], codebook after codebook
    positions: torch.Tensor  # [the most steps, D]
    layers: list[Layer]
    last_norm: Norm
    heads: Matrix  # D to K * V, float32


def pack(
    model: MusicgenForConditionalGeneration, *, device: torch.device, dtype: torch.dtype
) -> Weights:
    """Copy the decoder's weights to the device.

    Raises:
        TypeError: a projection has a bias. MusicGen's have none, and the engine leaves out what
            then is exactly zero.
    """

    def packed(*weights: torch.Tensor, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.cat([weight.detach().to(device, dtype) for weight in weights])

    def joined(*linears: torch.nn.Linear, dtype: torch.dtype = dtype) -> Matrix:
        return matrix(packed(*map(_weight, linears), dtype=dtype))

    def norm(module: torch.nn.LayerNorm) -> Norm:
        return packed(module.weight), packed(module.bias), module.eps

    def layer(module) -> Layer:
        own, text = module.self_attn, module.encoder_attn
        return Layer(
            norms=[
                norm(module.self_attn_layer_norm),
                norm(module.encoder_attn_layer_norm),
                norm(module.final_layer_norm),
            ],
            qkv=joined(own.q_proj, own.k_proj, own.v_proj),
            out=joined(own.out_proj),
            cross_q=joined(text.q_proj),
            cross_kv=joined(text.k_proj, text.v_proj),
            cross_out=joined(text.out_proj),
            fc1=joined(module.fc1),
            fc2=joined(module.fc2),
        )

    decoder = model.decoder.model.decoder
    return Weights(
        embedding=packed(*[table.weight for table in decoder.embed_tokens]),
        positions=packed(decoder.embed_positions.weights),
        layers=[layer(module) for module in decoder.layers],
        last_norm=norm(decoder.layer_norm),
        heads=joined(*model.decoder.lm_heads, dtype=torch.float32),
    )


def _weight(linear: torch.nn.Linear) -> torch.Tensor:
    if linear.bias is not None:
        raise TypeError("a projection of this MusicGen has a bias: it is not one for the engine")
    return linear.weight
