"""Networks made ready to be run, and nothing else: the same function as `MGBPv2.forward`, in less time and memory.

Training, exports and gradients use the module of `napari_mgbpv2.model.network`, which follows the paper. The engine
runs what is prepared here. What is done differently, what it was expected to gain and what it gained is in
``docs/performance.md``.
"""

from napari_mgbpv2.runtime.inference.network import InferenceNetwork
from napari_mgbpv2.runtime.inference.workspace import Workspace

__all__ = ["InferenceNetwork", "Workspace"]
