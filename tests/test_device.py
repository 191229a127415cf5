"""Choosing a device, and CUDA's libraries loaded ahead, which never harms a run."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from bozzetto import device
from bozzetto.device import begin_warm_up, end_warm_up, pick_device
from bozzetto.errors import InputError

GPU = torch.device("cuda")


@pytest.fixture(autouse=True)
def cold(monkeypatch):
    monkeypatch.setattr(device, "_warming", {})


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:99"])
def test_devices_that_are_not_there(name):
    with pytest.raises(InputError, match="device"):
        pick_device(name)


def test_a_broken_driver_is_left_to_those_who_use_it(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("CUDA driver initialization failed")

    reported = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    monkeypatch.setattr(torch, "zeros", broken)
    begin_warm_up(GPU)
    end_warm_up(GPU)
    assert not reported


def test_the_libraries_are_loaded_once_whoever_asks(monkeypatch):
    calls = []

    def first_uses(where):
        time.sleep(0.05)
        calls.append(where)

    monkeypatch.setattr(device, "_first_uses", first_uses)

    def ask() -> None:
        begin_warm_up(GPU)
        end_warm_up(GPU)
        assert calls == [GPU]

    failed = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    askers = [threading.Thread(target=ask) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert calls == [GPU] and not failed
    begin_warm_up(torch.device("cpu"))
    assert list(device._warming) == [GPU]
