"""Options of a training run, from the command line or a TOML file, validated together.

This module owns the list of options, their defaults and their checks. `napari_mgbpv2.cli.finetune` parses the command.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_mgbpv2.addresses import expand_path
from napari_mgbpv2.errors import TrainingError
from napari_mgbpv2.io.fingerprints import recorded_source
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.training.synthetic import KINDS

TRACKS = ("fidelity", "perceptual")
OPTIMIZERS = ("adamw", "qhadam", "lookahead-radam")
SCHEDULES = ("cosine", "constant")
DEFAULT_MINUTES = 10.0
PATHS_HASH = "paths_sha256"
_PATHS_OF_A_RUN = ("images", "validation", "low_resolution", "init", "feature_network")

# A residual network follows any values, f(a x + b) = a f(x) + b: signed ones, and images that use 2% of their range.
_SCRATCH = ModelConfig(features=(64, 48, 32, 12), steps=2, noise_channels=0, bias=False, residual=True)


@dataclass(frozen=True)
class TrainingOptions:
    """All options of a run.

    Attributes
    ----------
    images
        Files, folders and patterns of sharp images; or "scenes", "microscopy" or "micrographs" for synthetic ones; or
        both, mixed by ``synthetic_share``.
    output
        The ``.safetensors`` file to write.
    init
        Initial model: a packaged model's name, a model file, or "scratch". By default the packaged model of
        the scale. For synthetic images of one channel, a colour network is folded to one channel.
    scale
        Upscaling factor; by default that of ``init``.
    track
        "fidelity" (equation 1) or "perceptual" (equation 3).
    steps, minutes
        Length of the run; it ends at the first limit reached. `DEFAULT_MINUTES` if neither is given. A run limited
        only by steps is reproducible bit for bit on a CPU; minutes depend on the machine.
    batch_size, accumulate
        Patches per micro-batch on each device, and micro-batches per step.
    patch_size
        Target pixels along each side of a patch; by default a natural size of the network near 120.
    learning_rate
        Peak of the schedule.
    optimizer
        "adamw"; or "qhadam" or "lookahead-radam", which the paper uses.
    schedule
        "cosine" falls to zero along half a cosine; "constant" is the paper's.
    warm_up
        Steps over which the learning rate rises from zero.
    averaging
        Decay per step of the moving average of the weights, which is scored and saved; 0 for none.
    validation
        Images for validation only; by default a held-out part of ``images``.
    validate_every
        Steps between validations; by default ten validations per run.
    low_resolution
        Folder of the low-resolution images of real pairs.
    prepared
        Folder of prepared patches; it is made if it is missing.
    value_range
        Values of black and white in the images. By default those of the type for 8 bits and booleans; else 0 and the
        99.9th percentile of a coarse sample.
    round_to_8_bits
        Whether the shrunk images are rounded to 8 bits, as files often are.
    device
        "cpu", "cuda", "cuda:1", "mps", ...; by default the fastest available.
    precision
        "float32", "bfloat16" or "float16" of the forward passes; by default the device's best.
    seed
        Seed of all randomness.
    workers
        Number of processes that make patches; 0 makes them in the training process.
    feature_network
        Weights for the contextual loss: a VGG-19 file. None downloads the published one, "none" omits that loss.
    discriminator_learning_rate
        Learning rate of the discriminator in the perceptual track.
    discriminator_statistics
        Whether the discriminator gets normalised contrasts and their correlations in addition to the image (VN+SC).
    fit_pristine
        Whether NIQE compares with the training images instead of photographs.
    config
        Configuration of a network from scratch.
    synthetic_share
        Share of synthetic samples where ``images`` names files and one kind of synthetic images, 0 to 1.
    smooth_share
        Share of samples of files whose sharp image is blurred before it is shrunk, 0 to 1.
    record_paths
        Whether the model's file records whole paths of the images and the initial model, and a prepared folder those
        of its images; by default only their names.
    """

    images: tuple[str, ...]
    output: Path
    init: str | None = None
    scale: int | None = None
    track: str = "fidelity"
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 8
    accumulate: int = 1
    patch_size: int | None = None
    learning_rate: float = 3e-4
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warm_up: int = 20
    averaging: float = 0.99
    validation: tuple[str, ...] = ()
    validate_every: int | None = None
    low_resolution: str | None = None
    prepared: Path | None = None
    value_range: tuple[float, float] | None = None
    round_to_8_bits: bool = False
    device: str | None = None
    precision: str | None = None
    seed: int = 0
    workers: int = 1
    feature_network: str | None = None
    discriminator_learning_rate: float = 1e-4
    discriminator_statistics: bool = True
    fit_pristine: bool = False
    config: ModelConfig = field(default=_SCRATCH)
    synthetic_share: float = 0.2
    smooth_share: float = 0.0
    record_paths: bool = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises
        ------
        TrainingError
            An option has an invalid value, or two options contradict each other.
        """
        if not self.images:
            raise TrainingError('there are no images to train on: name files, folders or patterns, or "scenes".')
        if len(kinds := KINDS.keys() & set(self.images)) > 1:
            raise TrainingError(f"{' and '.join(sorted(kinds))} are two kinds of synthetic images; name one of them.")
        if not 0 <= self.synthetic_share <= 1:
            raise TrainingError(f"synthetic_share is {self.synthetic_share}; it must be from 0 to 1.")
        if not 0 <= self.smooth_share <= 1:
            raise TrainingError(f"smooth_share is {self.smooth_share}; it must be from 0 to 1.")
        if self.smooth_share and self.low_resolution is not None:
            raise TrainingError("smooth_share blurs images that are shrunk here; it does not apply to low_resolution.")
        if self.output.suffix != ".safetensors":
            raise TrainingError(f"{self.output}: a model's file ends in .safetensors.")
        for name, choices in (("track", TRACKS), ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in choices:
                raise TrainingError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(choices)}.")
        positive = ("steps", "minutes", "batch_size", "accumulate", "patch_size", "learning_rate", "validate_every")
        for name in positive:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise TrainingError(f"{name} is {value}; it must be greater than 0.")
        if self.warm_up < 0 or self.workers < 0:
            raise TrainingError("warm_up and workers must not be negative.")
        if not 0 <= self.averaging < 1:
            raise TrainingError(f"averaging is {self.averaging}; it must be at least 0 and less than 1.")
        if self.init == "scratch" and self.scale is None:
            raise TrainingError("a network from scratch needs a scale.")

    @property
    def synthetic(self) -> str | None:
        """The kind of synthetic images to train on; None for none."""
        return next((name for name in self.images if name in KINDS), None)

    @property
    def files(self) -> tuple[str, ...]:
        """Files, folders and patterns to train on; empty for synthetic images alone."""
        return tuple(name for name in self.images if name not in KINDS)

    @property
    def folder(self) -> Path:
        """Folder of the run's state, scores and pictures, next to the output."""
        return self.output.with_name(self.output.name.removesuffix(".safetensors") + ".training")

    @property
    def end(self) -> tuple[int | None, float | None]:
        """Steps and minutes after which the run ends."""
        return self.steps, DEFAULT_MINUTES if self.steps is None and self.minutes is None else self.minutes

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        plain = asdict(self) | {"config": self.config.to_dict()}
        return json.loads(json.dumps(plain, default=str))  # type: ignore[no-any-return]

    def public_record(self) -> dict[str, Any]:
        """Return plain values for publication: only names of paths, unless ``record_paths``."""
        plain = self.to_dict()
        return plain if self.record_paths else {name: _strip_folders(name, value) for name, value in plain.items()}

    def resume_record(self) -> dict[str, Any]:
        """Return plain values that identify the run on resume: the public record and a hash of the whole paths."""
        plain = self.to_dict()
        paths = json.dumps({name: plain[name] for name in _PATHS_OF_A_RUN}).encode("utf-8", "surrogatepass")
        return self.public_record() | {PATHS_HASH: hashlib.sha256(paths).hexdigest()}

    def first_difference(self, other: Mapping[str, Any]) -> str:
        """Return the first option that would change samples or weights compared with another run; empty if none.

        Length, interval of validations, loader workers and device may change between two parts of a run.
        """
        may_change = {"steps", "minutes", "validate_every", "workers", "device", "output", "prepared", "record_paths"}
        mine = self.resume_record() if PATHS_HASH in other else self.to_dict()
        if PATHS_HASH in other:  # the hash distinguishes paths, recorded or not
            may_change |= set(_PATHS_OF_A_RUN)
        # Options that did not exist in the version of that run had their defaults.
        theirs = {each.name: each.default for each in fields(self) if each.default is not MISSING} | dict(other)
        return next((name for name in mine if name not in may_change and mine[name] != theirs.get(name)), "")


def _strip_folders(name: str, value: Any) -> Any:
    if name not in (*_PATHS_OF_A_RUN, "output", "prepared") or value is None:
        return value
    return [recorded_source(each) for each in value] if isinstance(value, list) else recorded_source(value)


def options_from_file(path: Path) -> dict[str, Any]:
    """Read options from a TOML file: the names of `TrainingOptions`, with ``-`` or ``_``; ``[config]`` for scratch.

    Raises
    ------
    TrainingError
        The file cannot be read, is not TOML, or has an unknown option.
    """
    try:
        given = {name.replace("-", "_"): value for name, value in tomllib.loads(path.read_text()).items()}
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path}: is not a TOML file ({error}).") from error
    known = {each.name for each in fields(TrainingOptions)}
    if unknown := sorted(set(given) - known):
        raise TrainingError(f"{path}: has the option {unknown[0]!r}, which there is none of; see --help.")
    return given


def make_options(values: Mapping[str, Any]) -> TrainingOptions:
    """Make options from the plain values of a file or the command line. None means the default.

    Raises
    ------
    TrainingError
        An option is missing, or has a wrong type or an invalid value.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name in ("images", "validation"):
        if isinstance(given.get(name), str):
            given[name] = (given[name],)
        if name in given:
            given[name] = tuple(map(str, given[name]))
    if missing := {"images", "output"} - set(given):
        raise TrainingError(f"{' and '.join(sorted(missing))} must be given.")
    try:
        for name in ("output", "prepared"):
            if name in given:
                given[name] = Path(expand_path(str(given[name])))
        if "value_range" in given:
            low, high = given["value_range"]
            given["value_range"] = (float(low), float(high))
        config = given.pop("config", {})
        if isinstance(config, Mapping):
            unknown = set(config) - {each.name for each in fields(ModelConfig)}
            if unknown:
                raise TrainingError(f"config has {sorted(unknown)[0]!r}, which there is none of.")
            config = ModelConfig.from_dict(_SCRATCH.to_dict() | dict(config))
        return TrainingOptions(**given, config=config)
    except TrainingError:
        raise
    except (TypeError, ValueError) as error:
        raise TrainingError(f"an option has a value of a wrong kind: {error}") from error
