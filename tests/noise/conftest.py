"""Where Triton's kernels run: interpreted on the CPU, or compiled for a GPU."""

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    from seedfold.noise import triton as fused  # which loads Triton

    if request.param == "cpu" and fused.COMPILED:
        pytest.skip("the kernel is compiled for the GPU here; TRITON_INTERPRET=1 interprets it")
    if request.param == "cuda" and not (torch.cuda.is_available() and fused.COMPILED):
        pytest.skip("needs a CUDA GPU, and TRITON_INTERPRET not set")
    return request.param
