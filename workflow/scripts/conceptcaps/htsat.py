"""laion_clap's audio networks, made faster without changing what they compute.

Their spectrogram is a convolution with the Fourier matrix: here it is a Fourier transform. Their
window attention writes out every product: here torch's fused kernel does it.
"""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


def hasten(audio_branch: nn.Module) -> None:
    """Replace the spectrogram and the attention of a loaded HTSAT (or PANN) in place."""
    audio_branch.spectrogram_extractor = PowerSpectrogram(audio_branch.spectrogram_extractor)
    for block in audio_branch.modules():
        if type(getattr(block, "attn", None)).__name__ == "WindowAttention":
            block.attn = FusedAttention(block.attn, block.attn_mask)


class PowerSpectrogram(nn.Module):
    """Waves [B, T] to power spectra [B, 1, frames, bins], as torchlibrosa's `Spectrogram`."""

    def __init__(self, original: nn.Module):
        """Take over size, hop and the Hann window of the original."""
        super().__init__()
        self.fft, self.hop = original.stft.n_fft, original.stft.hop_length
        device = next(original.parameters()).device
        self.register_buffer("taper", torch.hann_window(self.fft, device=device))

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """Return the squared magnitudes."""
        spectrum = torch.stft(waves, self.fft, self.hop, window=self.taper, return_complex=True)
        return spectrum.abs().square().transpose(1, 2)[:, None]


class FusedAttention(nn.Module):
    """Window attention [windows, N, C] with its position bias and mask added up beforehand."""

    def __init__(self, original: nn.Module, mask: torch.Tensor | None):
        """Take over the projections; keep bias [1 or masked windows, heads, N, N]."""
        super().__init__()
        self.qkv, self.proj, self.heads = original.qkv, original.proj, original.num_heads
        self.scale = original.scale
        size = original.relative_position_index.shape[0]
        table = original.relative_position_bias_table.detach()
        bias = table[original.relative_position_index.flatten()].view(size, size, -1)
        bias = bias.permute(2, 0, 1)[None].contiguous()  # (1, heads, N, N)
        self.register_buffer("bias", bias if mask is None else bias + mask[:, None])

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple:
        """Return the attended windows, and a zero where the original returns its weights."""
        windows, size, width = x.shape
        q, k, v = self.qkv(x).view(windows, size, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if len(self.bias) == 1:  # no window is masked
            bias = self.bias.expand(windows, -1, -1, -1)
        else:
            bias = self.bias.repeat(windows // len(self.bias), 1, 1, 1)
        attended = scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        none = attended.new_zeros(1)
        return self.proj(attended.transpose(1, 2).reshape(windows, size, width)), none
