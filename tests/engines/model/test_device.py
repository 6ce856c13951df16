"""Laws of how the device is named that computes."""

import pytest

from app.engines.model.device import Device, device_of
from app.engines.model.local import LocalModel
from app.engines.model.supervisor import ModelSupervisor

GPU = (
    "llama_model_load_from_file_impl: using device CUDA0 (NVIDIA H100 80GB HBM3) (0000:19:00.0) - 80473 MiB free\n"
    "load_tensors: offloading output layer to GPU\n"
    "load_tensors: offloaded {layers}/31 layers to GPU\n"
)


@pytest.mark.parametrize(
    ("log", "threads", "expected"),
    [
        pytest.param("load_tensors: CPU model buffer", 2, Device(0, "CPU, 2 threads"), id="cpu"),
        pytest.param("", 1, Device(0, "CPU, 1 thread"), id="one thread"),
        pytest.param(
            GPU.format(layers=31), 2, Device(31, "NVIDIA H100 80GB HBM3, 31 of 31 layers"), id="gpu"
        ),
        pytest.param(
            GPU.format(layers=12), 2, Device(12, "NVIDIA H100 80GB HBM3, 12 of 31 layers"), id="part"
        ),
        pytest.param(GPU.format(layers=0), 4, Device(0, "CPU, 4 threads"), id="a GPU that is not used"),
        pytest.param(
            "using device ROCm0 (AMD) - 1 MiB free\nusing device ROCm1 (AMD 2) - 1 MiB free\noffloaded 3/3 layers",
            2,
            Device(3, "AMD and AMD 2, 3 of 3 layers"),
            id="two",
        ),
        pytest.param("offloaded 3/3 layers to GPU", 2, Device(3, "GPU, 3 of 3 layers"), id="nameless"),
    ],
)
def test_the_log_of_a_load_says_what_computes(log: str, threads: int, expected: Device) -> None:
    assert device_of(log, threads=threads) == expected


@pytest.mark.model
async def test_a_worker_says_what_it_computes_on(model: ModelSupervisor, local: LocalModel) -> None:
    assert local.sha256 == model.status.sha256
    assert (model.status.device or "").endswith(("thread", "threads", "layers"))
