"""The device and the precision that parameters mean."""

import pytest
import torch

from tasks.device import pick_device, pick_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "has", "expected"),
    [("auto", True, "bf16"), ("auto", False, "fp32"), ("fp32", True, "fp32"), ("fp16", False, "fp16")],
)
def test_pick_precision__auto_is_bfloat16_where_the_processor_has_it(monkeypatch, name, has, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has})
    assert pick_precision(name, device=CPU) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_pick_device__refuses_a_gpu_that_is_not_there():
    assert pick_device("auto") == CPU
    with pytest.raises(ValueError, match="expected a CUDA GPU, got none"):
        pick_device("cuda")
