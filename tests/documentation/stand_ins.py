"""What the pages speak of, small: images, models, a web server, a bucket, a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from examples import a_network, an_image
from napari_mgbpv2.model.checkpoints import export_model, save_model
from napari_mgbpv2.model.config import ModelConfig
from napari_mgbpv2.model.network import Ensemble, Network
from napari_mgbpv2.model.zoo import find_published, published
from s3 import a_bucket, serving_s3
from source_files import CYX, write_ome_zarr
from web import serving as serving_a_file
from web import use_cache
from zarr_server import serving as serving_a_folder

# The geometry of the published networks, which sets their tiles, with next to no features.
PUBLISHED = {
    "boe-perceptual": (ModelConfig(features=(2,) * 5, kernel=3),),
    "boe-fidelity": tuple(ModelConfig(features=(2,) * 5, kernel=kernel) for kernel in (3, 5, 7)),
}


def write_images(folder: Path) -> None:
    """Write every image that a page names."""
    for name in ("photo.png", "aerial.png", "scans/a.png", "scans/b.png", "more/days/c.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(an_image(192, 192, 3) if name == "photo.png" else an_image(20, 30, 3)).save(path)
    (folder / "slides").mkdir()
    for index in range(3):
        tifffile.imwrite(folder / "slides" / f"{index}.tif", an_image(400, 300, 3, seed=index), photometric="rgb")
    tifffile.imwrite(folder / "slide.tif", an_image(32, 48, 3), photometric="rgb", tile=(16, 16))
    tifffile.imwrite(folder / "extra.tif", an_image(20, 30))
    tifffile.imwrite(folder / "brain.tif", an_image(2, 20, 30), metadata={"axes": "ZYX"})
    np.save(folder / "stack.npy", an_image(2, 20, 30, dtype="u2"))
    cells = an_image(2, 20, 30, dtype="u2")
    scales = [[{"type": "scale", "scale": [1.0, 0.5 * step, 0.5 * step]}] for step in (1, 2)]
    for name in ("cells.ome.zarr", "plates/a.ome.zarr", "bucket/cells.ome.zarr"):
        write_ome_zarr(folder / name, [cells, cells[:, ::2, ::2]], CYX, scales)
    # As large as the part that is asked of it, and nothing of it is stored.
    zarr.create_array(folder / "slide.zarr", shape=(5400, 1700, 3), chunks=(256, 256, 3), dtype="u1")


def a_published_network(name: str) -> Network:
    """A network of random weights in the place of a published one."""
    configs = PUBLISHED[name]
    if len(configs) == 1:
        return a_network(configs[0], scale=16)
    ensemble = Ensemble(configs)
    for member, config in zip(ensemble.children(), configs, strict=True):
        member.load_state_dict(a_network(config).state_dict())
    return ensemble.eval().requires_grad_(False)


@contextmanager
def stand_ins(folder: Path, page: str, patch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Set up in ``folder`` what the text of a page needs; gives the places of what it has addresses of."""
    write_images(folder)
    use_cache(folder / "cache", patch)
    patch.setenv("MGBPV2_MODELS", str(folder / "mgbpv2-models"))
    places: dict[str, str] = {}
    with ExitStack() as stack:
        for name, configs in PUBLISHED.items():
            file = export_model(a_published_network(name), folder / f"{name}.model")
            server = stack.enter_context(serving_a_file(file.read_bytes()))
            known = replace(find_published(name), configs=configs, url=f"{server.address}/{name}.model")
            patch.setitem(published.PUBLISHED, name, known)
        authors = "BOE_Perceptual_CH3_LE5_MU2_BIAS_NOISE1_FE256-192-128-48-9_Filter#K3_mgbp.model"
        (folder / "boe-perceptual.model").rename(folder / authors)
        export_model(a_network(scale=4), folder / "theirs.model")
        if "-o mine.safetensors" not in page:  # else it trains it
            save_model(a_network(scale=4, guard=8), folder / "mine.safetensors")
        if "://" in page:
            server = stack.enter_context(serving_a_folder(folder))
            places["https://example.org"] = server.address
            patch.setenv("AWS_ENDPOINT_URL", server.address)
        if "-o s3://" in page:
            endpoint = stack.enter_context(serving_s3())
            a_bucket(endpoint, "results")
            patch.setenv("AWS_ENDPOINT_URL", endpoint)
        if "tcp://" in page:
            from distributed import LocalCluster

            cluster = LocalCluster(
                n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None
            )
            places["tcp://10.0.0.1:8786"] = stack.enter_context(cluster).scheduler_address
        yield places
