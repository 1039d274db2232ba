"""The weights of a MusicGen decoder as the engine wants them: few and large matrices."""

from dataclasses import dataclass

import torch
from transformers import MusicgenForConditionalGeneration

from conceptcaps import hugepages

# bytes: weights from memory, not from the processor's cache, are read faster by columns
_SMALL = 2**20
Norm = tuple[torch.Tensor, torch.Tensor, float]  # weight, bias, epsilon


@dataclass
class Layer:
    """Weights of one decoder layer; linear ones are [in, out], of width D."""

    norms: list[Norm]  # before self-attention, cross-attention, feed-forward
    qkv: torch.Tensor  # [D, 3D]; queries come out divided by the root of a head's width
    out: torch.Tensor
    cross_q: torch.Tensor  # divided as well
    cross_kv: torch.Tensor  # [D, 2D]
    cross_out: torch.Tensor
    fc1: torch.Tensor
    fc2: torch.Tensor


@dataclass
class Weights:
    """A whole decoder of K codebooks with V codes, and the start token V."""

    embedding: torch.Tensor  # [K * (V + 1), D], codebook after codebook
    positions: torch.Tensor  # [the most steps, D]
    layers: list[Layer]
    last_norm: Norm
    heads: torch.Tensor  # [D, K * V] float32


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

    def joined(*weights: torch.Tensor, dtype: torch.dtype = dtype) -> torch.Tensor:
        return packed(*weights, dtype=dtype).t()

    def placed(**matrices: torch.Tensor) -> dict[str, torch.Tensor]:
        """On a CPU lay weights out together: small ones by rows, which its products read faster."""
        if device.type != "cpu":
            return matrices
        small = max(matrix.nbytes for matrix in matrices.values()) <= _SMALL
        laid = hugepages.gather([m if small else m.t() for m in matrices.values()])
        return {name: m if small else m.t() for name, m in zip(matrices, laid, strict=True)}

    def norm(module: torch.nn.LayerNorm) -> Norm:
        return packed(module.weight), packed(module.bias), module.eps

    def query(attention) -> torch.Tensor:
        return _weight(attention.q_proj).float() * attention.head_dim**-0.5

    def layer(module) -> Layer:
        own, text = module.self_attn, module.encoder_attn
        return Layer(
            norms=[
                norm(module.self_attn_layer_norm),
                norm(module.encoder_attn_layer_norm),
                norm(module.final_layer_norm),
            ],
            **placed(
                qkv=joined(query(own), *map(_weight, (own.k_proj, own.v_proj))),
                out=joined(_weight(own.out_proj)),
                cross_q=joined(query(text)),
                cross_kv=joined(*map(_weight, (text.k_proj, text.v_proj))),
                cross_out=joined(_weight(text.out_proj)),
                fc1=joined(_weight(module.fc1)),
                fc2=joined(_weight(module.fc2)),
            ),
        )

    decoder = model.decoder.model.decoder
    return Weights(
        embedding=packed(*[table.weight for table in decoder.embed_tokens]),
        positions=packed(decoder.embed_positions.weights),
        layers=[layer(module) for module in decoder.layers],
        last_norm=norm(decoder.layer_norm),
        **placed(heads=joined(*map(_weight, model.decoder.lm_heads), dtype=torch.float32)),
    )


def _weight(linear: torch.nn.Linear) -> torch.Tensor:
    if linear.bias is not None:
        raise TypeError("a projection of this MusicGen has a bias: it is not one for the engine")
    return linear.weight
