"""Which devices can be chosen, and what they are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from user import User

from examples import an_image
from napari_mgbpv2.plugin.device_view import DeviceView
from napari_mgbpv2.plugin.devices import find_devices, title_of
from napari_mgbpv2.plugin.settings import Defaults


@pytest.fixture
def machine_with(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Pretend that the machine has some graphics cards."""

    def having(*cards: str, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cards))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name: cards[int(name.partition(":")[2] or 0)])
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        find_devices.cache_clear()

    yield having
    find_devices.cache_clear()


class TestFinding:
    def test_one_card_needs_no_number(self, machine_with: Callable[..., None]) -> None:
        machine_with("NVIDIA T4")
        assert [device.title for device in find_devices()] == ["cuda (NVIDIA T4)", "cpu"]

    def test_of_several_cards_each_has_its_number(self, machine_with: Callable[..., None]) -> None:
        machine_with("NVIDIA T4", "NVIDIA A100")
        assert [(device.name, device.title) for device in find_devices()] == [
            ("cuda:0", "cuda:0 (NVIDIA T4)"),
            ("cuda:1", "cuda:1 (NVIDIA A100)"),
            ("cpu", "cpu"),
        ]

    def test_without_a_number_it_is_the_first_card(self, machine_with: Callable[..., None]) -> None:
        machine_with("NVIDIA T4", "NVIDIA A100")
        assert title_of("cuda", find_devices()) == "cuda:0 (NVIDIA T4)"

    def test_metal_has_its_place(self, machine_with: Callable[..., None]) -> None:
        machine_with(mps=True)
        assert [device.name for device in find_devices()] == ["mps", "cpu"]


class TestChoosing:
    @pytest.fixture
    def view(self, qtbot: Any) -> DeviceView:
        view = DeviceView(Defaults(device="cuda:1"))
        qtbot.addWidget(view)
        return view

    def test_it_begins_with_what_the_user_prefers(self, view: DeviceView) -> None:
        assert view.chosen() == "cuda:1"

    def test_what_is_chosen_stays_so_when_the_devices_are_found(
        self, view: DeviceView, machine_with: Callable[..., None]
    ) -> None:
        machine_with("NVIDIA T4", "NVIDIA A100")
        view.set_devices(find_devices())
        assert (view.chosen(), view.list.currentText()) == ("cuda:1", "cuda:1 (NVIDIA A100)")

    def test_by_default_it_is_the_library_s_choice(self, qtbot: Any) -> None:
        view = DeviceView(Defaults())
        qtbot.addWidget(view)
        assert view.chosen() is None

    def test_the_widgets_offer_what_there_is(self, user: User) -> None:
        user.viewer.add_image(an_image(40, 30))
        devices = user.view.options.device
        user.waits_until(lambda: devices.list.findData("cuda") < 0 or "(" in devices.list.itemText(1))
        offered = [devices.list.itemData(row) for row in range(devices.list.count())]
        assert offered == [None, *(device.name for device in find_devices())]
