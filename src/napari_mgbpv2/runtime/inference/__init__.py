"""Networks prepared for inference: the same function as `MGBPv2.forward`, in less time and memory.

Training, exports and gradients use the module of `napari_mgbpv2.model.network`, which follows the paper. Engines run
the prepared form. ``docs/performance.md`` lists the differences and what each of them gains.
"""

from napari_mgbpv2.runtime.inference.network import InferenceNetwork
from napari_mgbpv2.runtime.inference.workspace import Workspace

__all__ = ["InferenceNetwork", "Workspace"]
