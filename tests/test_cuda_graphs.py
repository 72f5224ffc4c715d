"""Forwards that are recorded and replayed: which, how often, and with what bits.

What records here is a stand-in for CUDA graphs: it does the work again on the very memory that it was recorded with.
The real ones are in `test_cuda.py`, for machines with a GPU.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from examples import a_network
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.runtime import inference
from napari_mgbpv2.runtime.cuda_graphs import (
    CAPTURE_AFTER_RUNS,
    CUDA_GRAPHS_ENV_VAR,
    MAX_GRAPHS,
    CudaGraphCapturer,
    GraphedNetwork,
)
from napari_mgbpv2.runtime.inference import InferenceNetwork, Workspace

NOISY = ModelConfig(features=(6, 5, 4), noise_channels=1)
SIDE = NOISY.natural_up(40)
ALL = slice(0, SIDE), slice(0, SIDE)


@dataclass
class FakeGraph:
    """A recording that does its work again; its output stands in the same memory each time, as a GPU's does."""

    recorder: FakeCapturer
    work: Callable[[], Tensor]
    output: Tensor

    def replay(self) -> Tensor:
        self.recorder.replayed += 1
        self.output.copy_(self.work())
        return self.output


@dataclass
class FakeCapturer:
    """Counts what is recorded and replayed."""

    room: bool = True
    error: Exception | None = None
    spoils: float = 0.0
    recorded: int = 0
    replayed: int = 0
    cleared: int = 0
    kept: list[weakref.ref[FakeGraph]] = field(default_factory=list)

    def has_room(self, size: int) -> bool:
        return self.room and size > 0

    def capture(self, work: Callable[[], Tensor]) -> FakeGraph:
        if self.error is not None:
            raise self.error
        self.recorded += 1
        work()  # as before a recording on a GPU
        spoilt = self.spoils
        recording = FakeGraph(self, lambda: work() + spoilt, work())
        self.kept.append(weakref.ref(recording))
        return recording

    def clear(self) -> None:
        self.cleared += 1


@pytest.fixture(params=["matrices", "convolutions"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with both of torch's libraries, whichever of them this machine's processor would take."""
    for module in (inference.gemm, inference.convolutions):
        monkeypatch.setattr(module, "convolutions_are_faster", lambda: request.param == "convolutions")


def make_graphed_network(recorder: FakeCapturer | None) -> tuple[GraphedNetwork, InferenceNetwork]:
    network = InferenceNetwork(a_network(NOISY), Workspace(), torch.device("cpu"))
    return GraphedNetwork(network, recorder), network


def an_input(seed: int, side: int = SIDE) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


class TestGraphedNetwork:
    def test_a_kind_of_forward_is_recorded_when_it_comes_often(self) -> None:
        recorder = FakeCapturer()
        replaying, _ = make_graphed_network(recorder)
        recorded = []
        for seed in range(CAPTURE_AFTER_RUNS + 2):
            replaying(an_input(seed), None, 0.0, ALL)
            recorded.append(recorder.recorded)
        assert recorded == [0] * (CAPTURE_AFTER_RUNS - 1) + [1, 1, 1]
        assert recorder.replayed == 1 + 2  # the check, and the forwards after it

    @pytest.mark.usefixtures("library")
    def test_what_is_replayed_has_the_bits_of_the_network(self) -> None:
        replaying, network = make_graphed_network(FakeCapturer())
        for seed in range(CAPTURE_AFTER_RUNS + 3):
            image, noise = an_input(seed), an_input(10 + seed)
            assert torch.equal(replaying(image, None, 0.0, ALL), network(image))
            assert torch.equal(replaying(image, noise, 0.5, ALL), network(image, noise, 0.5))

    def test_results_are_not_overwritten_by_later_ones(self) -> None:
        replaying, _ = make_graphed_network(FakeCapturer())
        results = [replaying(an_input(seed), None, 0.0, ALL) for seed in range(CAPTURE_AFTER_RUNS + 4)]
        copies = [result.clone() for result in results]
        replaying(an_input(9), None, 0.0, ALL)
        assert all(torch.equal(result, copy) for result, copy in zip(results, copies, strict=True))

    @pytest.mark.parametrize(
        "other",
        [
            {"image": an_input(1, NOISY.natural_up(SIDE + 1)), "output_region": ALL},
            {"output_region": (slice(4, SIDE), ALL[1])},
            {"output_region": (ALL[0], slice(0, SIDE - 4))},
            {"noise": an_input(2), "amplitude": 1.0},
            {"noise": an_input(2), "amplitude": 0.25},
        ],
        ids=["size", "rows", "columns", "noise", "amplitude"],
    )
    def test_another_kind_is_not_mistaken_for_one_that_is_recorded(self, other: dict[str, Any]) -> None:
        recorder = FakeCapturer()
        replaying, network = make_graphed_network(recorder)
        for _ in range(CAPTURE_AFTER_RUNS + 1):
            replaying(an_input(0), None, 0.0, ALL)
            replaying(an_input(0), an_input(3), 0.5, ALL)
        call = {"image": an_input(0), "noise": None, "amplitude": 0.0, "output_region": ALL} | other
        before = recorder.replayed
        result = replaying(call["image"], call["noise"], call["amplitude"], call["output_region"])
        assert recorder.replayed == before
        assert torch.equal(result, network(call["image"], call["noise"], call["amplitude"], call["output_region"]))

    @pytest.mark.usefixtures("library")
    def test_a_recording_works_in_memory_of_its_own(self) -> None:
        """The usual workspace is replaced when a larger tile comes; a recording would go on writing there."""
        recorder = FakeCapturer()
        replaying, network = make_graphed_network(recorder)
        for seed in range(CAPTURE_AFTER_RUNS):
            replaying(an_input(seed), None, 0.0, ALL)
        network.workspace.clear()
        replaying(an_input(2), None, 0.0, ALL)
        assert recorder.replayed == 2
        assert network.workspace.nbytes == 0

    @pytest.mark.usefixtures("library")
    def test_no_recording_touches_a_workspace_that_others_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Every buffer that a recorded forward takes is of a workspace that only this run knows."""
        taken: list[Workspace] = []
        take = Workspace.take

        def noted(self: Workspace, name: str, *shape: int, like: Tensor) -> Tensor:
            taken.append(self)
            return take(self, name, *shape, like=like)

        replaying, network = make_graphed_network(FakeCapturer())
        for seed in range(CAPTURE_AFTER_RUNS):
            replaying(an_input(seed), None, 0.0, ALL)
        monkeypatch.setattr(Workspace, "take", noted)
        replaying(an_input(5), None, 0.0, ALL)
        assert len({id(workspace) for workspace in taken}) == 1
        assert taken[0] is not network.workspace

    @pytest.mark.usefixtures("library")
    def test_every_run_of_what_is_recorded_asks_for_its_memory_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A graph owns what is asked for while it is recorded: memory of a run before it would go to somebody else."""
        asked: list[set[str]] = []
        take = Workspace.take

        class Watching(FakeCapturer):
            def capture(self, work: Callable[[], Tensor]) -> FakeGraph:
                def watched() -> Tensor:
                    asked.append(set())
                    return work()

                return super().capture(watched)

        def noted(self: Workspace, name: str, *shape: int, like: Tensor) -> Tensor:
            if asked and name not in self._buffers:
                asked[-1].add(name)
            return take(self, name, *shape, like=like)

        monkeypatch.setattr(Workspace, "take", noted)
        replaying, _ = make_graphed_network(Watching())
        for seed in range(CAPTURE_AFTER_RUNS + 1):
            replaying(an_input(seed), None, 0.0, ALL)
        assert len(asked) == 2 + 2  # before and while recording, the check, and the last forward
        assert all({"features", "stack 0", "stack 1"} <= names for names in asked)

    def test_the_least_used_recordings_go_first(self) -> None:
        recorder = FakeCapturer()
        replaying, _ = make_graphed_network(recorder)

        def run(kind: int, times: int = 1) -> None:
            for _ in range(times):
                replaying(an_input(0), None, 0.0, (slice(kind, SIDE), ALL[1]))

        for kind in range(MAX_GRAPHS):
            run(kind, CAPTURE_AFTER_RUNS)
        run(0)
        run(MAX_GRAPHS, CAPTURE_AFTER_RUNS)
        assert recorder.recorded == MAX_GRAPHS + 1
        before = recorder.replayed
        run(0)
        assert recorder.replayed == before + 1
        run(1)
        assert recorder.recorded == MAX_GRAPHS + 2

    def test_what_they_read_goes_with_them(self) -> None:
        """Images of many sizes must not fill the memory of a GPU."""
        recorder = FakeCapturer()
        replaying, _ = make_graphed_network(recorder)
        for times in range(MAX_GRAPHS + 3):
            image = an_input(0, NOISY.natural_up(SIDE) + times * NOISY.alignment)
            whole = slice(0, image.shape[2]), slice(0, image.shape[3])
            for _ in range(CAPTURE_AFTER_RUNS):
                replaying(image, None, 0.0, whole)
        assert len(replaying._inputs) == MAX_GRAPHS

    def test_without_room_nothing_is_recorded_until_there_is_some(self) -> None:
        recorder = FakeCapturer(room=False)
        replaying, _ = make_graphed_network(recorder)
        for seed in range(CAPTURE_AFTER_RUNS):
            replaying(an_input(seed), None, 0.0, ALL)
        assert recorder.recorded == 0
        recorder.room = True
        replaying(an_input(3), None, 0.0, ALL)
        assert recorder.recorded == 1

    @pytest.mark.parametrize(
        ("recorder", "reason"),
        [
            (FakeCapturer(spoils=1e-6), "results differ"),
            (FakeCapturer(error=torch.OutOfMemoryError("full")), "full"),
        ],
        ids=["other results", "an error"],
    )
    def test_where_recording_does_not_work_the_network_goes_on_without(
        self, recorder: FakeCapturer, reason: str
    ) -> None:
        replaying, network = make_graphed_network(recorder)
        for seed in range(CAPTURE_AFTER_RUNS - 1):
            replaying(an_input(seed), None, 0.0, ALL)
        with pytest.warns(RuntimeWarning, match=rf"CUDA graphs do not work on this GPU \({reason}\)"):
            second = replaying(an_input(1), None, 0.0, ALL)
        replayed = recorder.replayed
        assert torch.equal(second, network(an_input(1)))
        assert torch.equal(replaying(an_input(2), None, 0.0, ALL), network(an_input(2)))
        assert recorder.replayed == replayed
        assert recorder.cleared == 1

    def test_memory_is_given_back_with_all_recordings(self) -> None:
        recorder = FakeCapturer()
        replaying, network = make_graphed_network(recorder)
        for seed in range(CAPTURE_AFTER_RUNS):
            replaying(an_input(seed), None, 0.0, ALL)
        replaying.clear()
        gc.collect()
        assert recorder.cleared == 1
        assert [recording() for recording in recorder.kept] == [None]
        assert torch.equal(replaying(an_input(4), None, 0.0, ALL), network(an_input(4)))
        assert recorder.recorded == 1

    def test_a_cpu_records_nothing(self) -> None:
        network = InferenceNetwork(a_network(NOISY), Workspace(), torch.device("cpu"))
        replaying = GraphedNetwork.for_device(torch.device("cpu"), network)
        assert all(torch.equal(replaying(an_input(seed), None, 0.0, ALL), network(an_input(seed))) for seed in range(4))

    @pytest.mark.parametrize(("value", "is_on"), [(None, False), ("0", False), ("", False), ("1", True)])
    def test_a_gpu_records_only_where_the_user_has_turned_that_on(
        self, value: str | None, is_on: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(CUDA_GRAPHS_ENV_VAR, raising=False)
        if value is not None:
            monkeypatch.setenv(CUDA_GRAPHS_ENV_VAR, value)
        network = InferenceNetwork(a_network(NOISY), Workspace(), torch.device("cpu"))
        assert (
            isinstance(GraphedNetwork.for_device(torch.device("cuda"), network)._capturer, CudaGraphCapturer) is is_on
        )

    def test_a_cpu_records_nothing_even_where_that_is_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(CUDA_GRAPHS_ENV_VAR, "1")
        network = InferenceNetwork(a_network(NOISY), Workspace(), torch.device("cpu"))
        assert GraphedNetwork.for_device(torch.device("cpu"), network)._capturer is None
