"""Train a network from options to a model file, with progress reports, cancellation and resume.

This module owns the loop: the schedule, validations, saved states and the best model. A step itself is in
`optimization_step`, the data in `training_data`.

Every step is a function of the seed, its number and the weights, because samples and noise are drawn from these
numbers. So the state of a run is small, and a resumed run of steps ends with the same bits on a CPU as an uninterrupted
one.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from napari_mgbpv2.errors import Cancelled, TrainingError
from napari_mgbpv2.io.fingerprints import recorded_source
from napari_mgbpv2.model.checkpoints import save_model
from napari_mgbpv2.runtime import choose_device, choose_precision, measure_guard
from napari_mgbpv2.training.initialization import claim_folder, make_initial_network, make_objective
from napari_mgbpv2.training.optimization_step import OptimizationStep
from napari_mgbpv2.training.optimizers import learning_rate_at
from napari_mgbpv2.training.options import TrainingOptions
from napari_mgbpv2.training.process_group import ProcessGroup
from napari_mgbpv2.training.run_log import RunLogger
from napari_mgbpv2.training.state import load_state, save_state, write_file
from napari_mgbpv2.training.training_data import load_training_data
from napari_mgbpv2.training.validation import validate

DEFAULT_PATCH_SIZE = 120  # default patch size, in target pixels
DEFAULT_VALIDATIONS = 10  # of a run, by default
BEST_FILE = "best.safetensors"


@dataclass(frozen=True)
class TrainingReport:
    """Progress of a run.

    Attributes
    ----------
    step, share
        Steps done, and the share of the run that is over, 0 to 1.
    loss
        Mean since the last report.
    patches_per_second
        Of all processes, since the run began or was resumed.
    seconds_left
        Estimated time until the end of the run.
    validation
        The scores, when there has been a validation.
    """

    step: int
    share: float
    loss: float
    patches_per_second: float
    seconds_left: float
    validation: dict[str, float] | None = None


ReportCallback = Callable[[TrainingReport], None]


def train(
    options: TrainingOptions,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_report: ReportCallback | None = None,
    report_every: int = 20,
    cancelled: Callable[[], bool] | None = None,
    tell: ReportCallback | None = None,
) -> Path:
    """Train a network and write it.

    Parameters
    ----------
    options
        All options of the run.
    resume
        Continue the run whose state is next to the output.
    overwrite
        Replace an existing output and run.
    on_report
        Called every ``report_every`` steps and after each validation.
    cancelled
        Called before each step. When it returns True, the run saves its state and ends.
    tell
        Deprecated name of ``on_report``.

    Returns
    -------
    Path
        The model file: the moving average of the weights at the best validation, or at the last one if validations
        cannot be compared.

    Raises
    ------
    TrainingError
        The options do not fit together or to the model, a run exists already, or it cannot be resumed.
    SourceError, ImageError
        No image can be trained on.
    Cancelled
        ``cancelled`` returned True, or the user pressed Ctrl-C. The run can be resumed.
    """
    if tell is not None:
        warnings.warn("train: tell is now on_report", DeprecationWarning, stacklevel=2)
        on_report = on_report or tell
    with ProcessGroup.from_environment(options) as process_group:
        run = Run(options, process_group, resume=resume, overwrite=overwrite)
        try:
            return run.run(on_report or _ignore_report, report_every, cancelled or _never)
        finally:
            if run.logger is not None:
                run.logger.close()


@contextmanager
def hold_signals(*numbers: signal.Signals) -> Iterator[Callable[[], bool]]:
    """Delay signals while a change must be completed, or until all processes have agreed to stop.

    Parameters
    ----------
    numbers
        The signals. Ignored signals stay ignored.

    Yields
    ------
    Callable
        Returns whether one of them has been received.
    """
    came: list[int] = []
    usual = {number: signal.getsignal(number) for number in numbers}
    held = {number: handler for number, handler in usual.items() if handler not in (signal.SIG_IGN, None)}
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in the main thread only
        held = {}
    for number in held:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)


class Run:
    """Training run: its data, its optimization and its progress."""

    def __init__(self, options: TrainingOptions, process_group: ProcessGroup, *, resume: bool, overwrite: bool) -> None:
        self.options, self.process_group = options, process_group
        state = load_state(options.folder) if resume else None
        device = process_group.device or choose_device(options.device)
        precision = choose_precision(options.precision, device)
        network = make_initial_network(options).to(torch.device(device))
        self.scale = network.scale or 1
        self.patch = options.patch_size or network.config.natural_up(DEFAULT_PATCH_SIZE)
        self.data = load_training_data(options, self.scale, self.patch, network.config.channels)
        objective = make_objective(options, network, torch.device(device))
        self.pristine = self.data.pristine() if options.fit_pristine else None
        if process_group.is_leader:
            claim_folder(options, state, overwrite)
            if self.pristine is not None:
                self.pristine.save(options.folder / "pristine.npz")
        self.optimization = OptimizationStep(network, objective, options, precision, process_group)

        # not counting the first validation, which scores the initial network
        self.step, self.best, self.validations, self.validated_at = 0, -math.inf, -1, -1
        seconds_before = 0.0
        if state is not None:
            self.step, self.best, self.validations = state["step"], state["best"], state["validations"]
            seconds_before = state["seconds"]
            self.optimization.load_state_dict(state["learner"])
        self.first_step, self.now_began = self.step, time.monotonic()
        self.began = self.now_began - seconds_before
        self.logger = RunLogger(options.folder, self.step) if process_group.is_leader else None

    def run(self, on_report: ReportCallback, report_every: int, cancelled: Callable[[], bool]) -> Path:
        """Run all steps with their validations, and write the model.

        A signal does not stop one of several processes alone, because the others would wait for it. All stop after the
        same step. torchrun sends SIGTERM to them after Ctrl-C.
        """
        if self.process_group.size == 1:
            return self._run(on_report, report_every, cancelled)
        with hold_signals(signal.SIGINT, signal.SIGTERM) as signalled:
            return self._run(on_report, report_every, lambda: cancelled() or signalled())

    def _run(self, on_report: ReportCallback, report_every: int, cancelled: Callable[[], bool]) -> Path:
        options, parts, losses = self.options, {"loss": math.nan}, list[float]()
        interrupted: Callable[[], bool] = _never
        is_agreed = False
        size = options.batch_size * options.accumulate
        batches = iter(
            self.data.batches(
                size,
                start=self.step,
                workers=options.workers,
                rank=self.process_group.rank,
                world=self.process_group.size,
            )
        )
        try:
            if self.step == 0:
                on_report(self._report([math.nan], self._validate({})))
            while (share := self._share()) < 1:
                if is_agreed := self.process_group.any(cancelled() or interrupted()):
                    raise KeyboardInterrupt
                rate = learning_rate_at(options.learning_rate, options.schedule, options.warm_up, self.step, share)
                batch = next(batches)
                with hold_signals(
                    signal.SIGINT
                ) as interrupted:  # an interrupted step would leave an inconsistent state
                    parts = self.optimization.take_step(self.step, batch, rate)
                    losses.append(parts["loss"])
                    self.step += 1
                scores = self._validate(parts) if self._validation_is_due() else None
                if scores is not None or self.step % report_every == 0:
                    on_report(self._report(losses, scores))
                    losses.clear()
        except KeyboardInterrupt:
            self._save()
            if is_agreed:
                self.process_group.wait()  # torchrun ends all processes when the first one ends
            raise Cancelled(
                f"stopped after step {self.step}; its state is in {options.folder}; --resume continues from there."
            ) from None
        except TrainingError as error:
            raise TrainingError(f"{error} The model of the last validation is in {options.folder}.") from error
        if self.validated_at != self.step:
            on_report(self._report(losses or [parts["loss"]], self._validate(parts)))
        self.process_group.wait()
        if self.process_group.is_leader:
            write_file(options.output, (options.folder / BEST_FILE).read_bytes())
        return options.output

    def _share(self) -> float:
        """Return the share of the run that is over, the same in all processes."""
        steps, minutes = self.options.end
        by_steps = self.step / steps if steps is not None else 0.0
        by_time = self._seconds() / (60 * minutes) if minutes is not None else 0.0
        return self.process_group.agree(max(by_steps, by_time))

    def _seconds(self) -> float:
        return time.monotonic() - self.began

    def _validation_is_due(self) -> bool:
        every = self.options.validate_every
        if every is not None:
            return self.step % every == 0
        return self._share() >= (self.validations + 1) / DEFAULT_VALIDATIONS

    def _validate(self, parts: dict[str, float]) -> dict[str, float]:
        """Score the averaged weights, log the scores, save the best model (or the last) and the state."""
        network = self.optimization.averaged()
        found = validate(
            network,
            self.data.validation,
            self.scale,
            perceptual=self.options.track == "perceptual",
            pristine=self.pristine,
        )
        self.validated_at, self.validations = self.step, self.validations + 1
        is_best = (
            found.figure_of_merit is None or found.figure_of_merit > self.best
        )  # without a figure of merit, the last is kept
        self.best = self.best if found.figure_of_merit is None else max(self.best, found.figure_of_merit)
        if self.logger is not None:
            self.logger.add(self.step, {**parts, **found.scores})
            self.logger.add_sheet(self.step, found.rows)
            if is_best:
                network = network.cpu().eval()
                save_model(
                    network,
                    self.options.folder / BEST_FILE,
                    scale=self.scale,
                    guard=measure_guard(network, self.scale),
                    trained_on=self.data.description,
                    scores=found.scores,
                    training=self._record(),
                    overwrite=True,
                )
        self._save()
        return found.scores

    def _record(self) -> dict[str, object]:
        """Return the training metadata of the model's file."""
        skipped = [[path, reason] for path, reason in self.data.skipped]
        if not self.options.record_paths:
            skipped = [
                [recorded_source(path), reason.replace(os.path.dirname(path) + os.sep, "")] for path, reason in skipped
            ]
        features = getattr(self.optimization.objective, "features", None)
        return {
            "steps": self.step,
            "patch_size": self.patch,
            "value_range": self.data.value_range,
            "skipped": skipped,
            "contextual_term": features is not None,
            "options": self.options.public_record(),
        }

    def _report(self, losses: list[float], scores: dict[str, float] | None) -> TrainingReport:
        seconds, share = self._seconds(), min(1.0, self._share())
        per_step = self.options.batch_size * self.options.accumulate * self.process_group.size
        rate = per_step * (self.step - self.first_step) / max(1e-9, time.monotonic() - self.now_began)
        left = seconds * (1 - share) / share if share else math.inf
        return TrainingReport(self.step, share, sum(losses) / len(losses), rate, left, scores)

    def _save(self) -> None:
        if self.process_group.is_leader:
            state = {
                "step": self.step,
                "seconds": self._seconds(),
                "best": self.best,
                "validations": self.validations,
                "options": json.dumps(self.options.resume_record()),
                "learner": self.optimization.state_dict(),
            }
            save_state(self.options.folder, state)


def _ignore_report(report: TrainingReport) -> None:
    pass


def _never() -> bool:
    return False


def __getattr__(name: str) -> object:
    """Return `TrainingReport` by its former name, ``Report``, for one release."""
    if name == "Report":
        warnings.warn(f"{__name__}.Report is now TrainingReport", DeprecationWarning, stacklevel=2)
        return TrainingReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
