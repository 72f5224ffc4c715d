"""Load the samples and the validation images of a run from its options."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from napari_mgbpv2.errors import TrainingError
from napari_mgbpv2.io.fingerprints import recorded_source
from napari_mgbpv2.metrics.niqe import PristineModel
from napari_mgbpv2.metrics.scores import luma
from napari_mgbpv2.training.data import (
    ImageSamples,
    Pair,
    PairedSamples,
    SyntheticSamples,
    sample_loader,
    validation_images,
)
from napari_mgbpv2.training.data.mixed_samples import MixedSamples
from napari_mgbpv2.training.data.splitting import cells
from napari_mgbpv2.training.options import TrainingOptions
from napari_mgbpv2.training.synthetic import KINDS

VALIDATION_SIDE = {
    "fidelity": 512,
    "perceptual": 1024,
}  # largest side of validation images in pixels; NIQE needs large ones
PRISTINE_CROPS = 32  # crops of training images for fitting a pristine model
HELD_OUT = 0.1  # held-out share of the images, if no validation images are given


@dataclass(frozen=True)
class TrainingData:
    """Samples to train on and images to score.

    Attributes
    ----------
    samples
        Endless pairs by number.
    validation
        Pairs for validation.
    description
        Description of the samples, for the model's card.
    value_range
        Values of black and white of the images; None for synthetic ones.
    skipped
        Path and reason of images that cannot be used.
    """

    samples: ImageSamples | PairedSamples | SyntheticSamples | MixedSamples
    validation: list[Pair]
    description: str
    value_range: tuple[float, float] | None
    skipped: list[tuple[str, str]]

    def batches(self, size: int, *, start: int, workers: int, rank: int, world: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Return the batches of one process from step ``start`` on.

        Parameters
        ----------
        size
            Samples per batch of this process.
        start
            First step, from 0.
        workers
            Processes that make samples; 0 makes them in this one.
        rank, world
            Index of this process, and number of processes.

        Returns
        -------
        iterable of (Tensor, Tensor)
            Inputs and targets, (size, C, patch, patch) float32 each.
        """
        return sample_loader(self.samples, size, start=start, workers=workers, rank=rank, world=world)

    def pristine(self) -> PristineModel:
        """Fit the pristine model of NIQE on the sharp training images.

        Raises
        ------
        ImageError
            The images are too small or too flat.
        TrainingError
            The images are synthetic.
        """
        samples = self.samples.images if isinstance(self.samples, MixedSamples) else self.samples
        if isinstance(samples, SyntheticSamples):
            raise TrainingError("NIQE is fitted on images of your own, not synthetic ones; leave out --fit-pristine.")
        crops = cells(samples.used, PRISTINE_CROPS, VALIDATION_SIDE["fidelity"], samples.scale)
        sharp = (samples.pair(region.image, *crop)[1] for region, *crop in crops)  # type: ignore[arg-type]
        return PristineModel.fit(luma(image) for image in sharp)


def load_training_data(options: TrainingOptions, scale: int, patch: int, channels: int) -> TrainingData:
    """Load the images that the options name.

    Parameters
    ----------
    options
        Options of the run.
    scale, patch, channels
        Upscaling factor, target pixels of a sample along each side, and channels of the network.

    Raises
    ------
    SourceError, ImageError
        No image can be used.
    """
    samples: ImageSamples | PairedSamples
    kind = options.synthetic
    synthetic = None if kind is None else SyntheticSamples(kind, scale, patch, options.seed, channels=channels)
    about_synthetic = "" if kind is None else f"synthetic {kind}: {KINDS[kind].description}"
    if synthetic is not None and not options.files:
        return TrainingData(synthetic, validation_images(synthetic), about_synthetic, None, [])
    hold_out = 0.0 if options.validation else HELD_OUT
    if options.low_resolution is not None:
        samples = PairedSamples(
            options.files,
            options.low_resolution,
            scale,
            patch,
            options.seed,
            channels=channels,
            value_range=options.value_range,
            hold_out=hold_out,
        )
    else:
        samples = ImageSamples(
            options.files,
            scale,
            patch,
            options.seed,
            channels=channels,
            value_range=options.value_range,
            round_to_8_bits=options.round_to_8_bits,
            hold_out=hold_out,
            prepared=options.prepared,
            record_paths=options.record_paths,
            smooth_share=options.smooth_share,
        )
    scored: ImageSamples | PairedSamples = samples
    if options.validation:
        scored = ImageSamples(
            options.validation,
            scale,
            patch,
            options.seed,
            channels=channels,
            like=samples,
            round_to_8_bits=options.round_to_8_bits,
        )
    size = VALIDATION_SIDE[options.track]
    count = len(samples.images.planes)
    named = options.files if options.record_paths else map(recorded_source, options.files)
    description = f"{count} image{'s' if count > 1 else ''} of {', '.join(named)}"
    validation = validation_images(scored, size=size)
    if synthetic is None:
        return TrainingData(samples, validation, description, samples.value_range, samples.skipped)
    mixed = MixedSamples(samples, synthetic, options.synthetic_share, options.seed)
    description = f"{description}; {about_synthetic}"
    return TrainingData(mixed, validation, description, samples.value_range, samples.skipped)
