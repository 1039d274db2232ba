"""Make CUDA builds of torchvision and torchaudio importable beside a CPU-only torch.

The Makefile copies this file into the environment's site-packages together with a `.pth` line that
imports it at start-up. It costs nothing until one of the two packages is imported, and does nothing
at all where torch has CUDA. Their C++ operators stay unavailable; the workflow does not use them
(laion-clap and transformers only import the packages).
"""

import importlib.abc
import sys
import types

_done = []  # packages already prepared; also keeps the operator library alive


def _declare_torchvision_operators(torch):
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def _replace_torchaudio_extension():
    extension = types.ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._check_cuda_version = lambda: None
    extension.fail_if_no_align = lambda function: function
    sys.modules["torchaudio._extension"] = extension
    return extension


class _BeforeImport(importlib.abc.MetaPathFinder):
    """Prepares torch just before torchvision or torchaudio is found by the ordinary finders."""

    def find_spec(self, name, path=None, target=None):
        if name in ("torchvision", "torchaudio") and name not in _done:
            _done.append(name)
            import torch

            if torch.version.cuda is None:
                if name == "torchvision":
                    _done.append(_declare_torchvision_operators(torch))
                else:
                    _done.append(_replace_torchaudio_extension())
        return None


sys.meta_path.insert(0, _BeforeImport())
