"""The end of a conversion: whether it has been reached before, and a TIFF where one is wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_mgbpv2.addresses import absolute_path
from napari_mgbpv2.conversion.job import CancellationCallback, ConversionPlan
from napari_mgbpv2.conversion.verification import faults_of
from napari_mgbpv2.errors import DestinationError, MGBPv2Error
from napari_mgbpv2.io.fingerprints import recorded_source, without_folders


def is_already_complete(prepared: ConversionPlan) -> bool:
    """Whether the destination is the complete result of this very job.

    Where it may be overwritten, work that has been begun on it anew comes first.

    Raises
    ------
    DestinationError
        It is a result of ours, but of another job, and may not be overwritten; or something is missing from it.
    """
    from napari_mgbpv2.io.writers.ome_tiff import read_provenance
    from napari_mgbpv2.io.writers.ome_zarr import (
        complete_interrupted_publish,
        differences,
        find_partial_output,
        provenance_of,
    )

    destination, overwrite = absolute_path(prepared.job.destination), prepared.job.overwrite
    complete_interrupted_publish(destination, is_file=prepared.job.makes_tiff)
    if overwrite and find_partial_output(destination) is not None:
        return False
    if prepared.job.makes_tiff:
        assert isinstance(destination, Path)
        found = read_provenance(destination)
    else:
        found = provenance_of(destination)
    if found is None:
        return False
    now = comparable(prepared.layout.provenance)
    if different := differences(_without_versions(comparable(found)), _without_versions(now)):
        if overwrite:
            return False
        raise DestinationError(f"{destination} is complete, but made with other settings: {different}")
    if faults := list(faults_of(destination, thorough=False)):
        if overwrite:
            return False
        more = f", and {len(faults) - 1} more faults" if len(faults) > 1 else ""
        raise DestinationError(
            f"{destination} was complete once, but is damaged: {faults[0]}{more}; mgbpv2-upscale --verify names all, "
            "and --overwrite makes it anew"
        )
    return True


def write_tiff(
    prepared: ConversionPlan, cancelled: CancellationCallback | None, folder: Path, levels: list[Any]
) -> Path:
    """Write the levels of a complete pyramid into an OME-TIFF in a folder, and return the file."""
    from napari_mgbpv2.io.writers.ome_tiff import write_ome_tiff

    layout, path = prepared.layout, folder / "image.ome.tif"
    path.unlink(missing_ok=True)  # of a run that was stopped while it wrote
    try:
        write_ome_tiff(
            path,
            levels,
            axes=layout.axes,
            colour=layout.colour,
            pixel_size=layout.pixel_size,
            units=layout.units,
            translation=layout.translation,
            name=layout.name,
            channel_names=layout.channel_names,
            channel_colors=layout.channel_colors,
            provenance=layout.provenance,
            tile=layout.chunk,
            cancelled=cancelled,
            icc_profile=prepared.source.icc_profile,
        )
    except MGBPv2Error as error:  # which names a file that the user does not know
        raise type(error)(str(error).replace(str(path), str(prepared.job.destination))) from error
    return path


def comparable(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is compared of two jobs: whether one records whole paths makes no difference."""
    told = dict(provenance)
    if isinstance(told.get("source"), str):
        told["source"] = recorded_source(told["source"])
    if isinstance(told.get("source_identity"), Mapping):
        told["source_identity"] = without_folders(told["source_identity"])
    return told


def _without_versions(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what may change after an image is complete."""
    return {name: value for name, value in json.loads(json.dumps(dict(provenance))).items() if name != "versions"}
