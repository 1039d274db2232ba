"""The codec's decoder against transformers': the same waves for every layout of its layers."""

import pytest
import torch
from transformers import EncodecConfig, EncodecModel

from conceptcaps.musicgen_codec import Decoder


def codec(**options) -> EncodecModel:
    torch.manual_seed(0)
    settings = {
        "sampling_rate": 8000, "num_filters": 4, "hidden_size": 16, "codebook_size": 32,
        "codebook_dim": 16, "upsampling_ratios": [5, 4], "target_bandwidths": [8.0],
        "use_causal_conv": False,
    }  # fmt: skip
    model = EncodecModel(EncodecConfig(**settings | options)).eval()
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_()
    for name, parameter in model.decoder.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_causal_conv": True},
        {"use_causal_conv": True, "trim_right_ratio": 0.3},
        {"num_residual_layers": 3},  # dilations 1, 2 and 4
        {"use_conv_shortcut": False},
        {"pad_mode": "constant"},
        {"audio_channels": 2},
        {"upsampling_ratios": [3, 7], "kernel_size": 5, "last_kernel_size": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("frames", [1, 2, 3, 40])
@torch.inference_mode()
def test_a_wave_is_that_of_transformers(options, frames):
    model = codec(**options)
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 32, (model.quantizer.num_quantizers, frames), generator=generator)
    expected = model.decode(codes[None, None], audio_scales=[None]).audio_values[0]
    wave = Decoder(model).play(codes)
    assert expected.std() > 1e-3
    torch.testing.assert_close(wave, expected, atol=1e-5, rtol=1e-4)


def test_a_codec_that_normalises_over_time_is_refused():
    with pytest.raises(TypeError, match="time_group_norm is not MusicGen's"):
        Decoder(codec(norm_type="time_group_norm"))
