"""What this machine has, and how its lack is told."""

import pytest
import torch

from anomaly import settings
from anomaly.errors import InputError
from anomaly.machine import has_bfloat16, pick_device


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_device_that_is_not_there(device):
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
        pytest.skip(f"{device} is there")
    with pytest.raises(InputError, match=f"device='{device}'.*device=auto"):
        pick_device(device)


@pytest.mark.parametrize(
    "there, expected",
    [
        ({"avx2": True, "avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),  # ARM
        ({}, False),
    ],
)
def test_bfloat16_is_what_the_processor_has(monkeypatch, there, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there)
    assert has_bfloat16(torch.device("cpu")) == expected


def test_bfloat16_without_instructions_is_float32_with_a_word(
    tiny_settings, monkeypatch, capsys
):
    low = tiny_settings(precision="bfloat16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    settings.say_once.cache_clear()
    found = {settings.resolve_backbone(low) for _ in range(2)}
    assert found == {tiny_settings(precision="float32")}
    line = "precision=bfloat16: this processor has no instructions for it; float32"
    assert capsys.readouterr().out.count(line) == 1
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert settings.resolve_backbone(low) == low and not capsys.readouterr().out
