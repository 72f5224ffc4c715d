"""Checks of the workers of a cluster, before the first task of each.

A worker is used if it has the same version of this package and the same model file, and sees the source and the
output. Any other worker is refused by name, and the rest continue. Workers that join later are checked, too.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from napari_mgbpv2.addresses import display_path
from napari_mgbpv2.model.zoo import file_hash, find_model_by_hash

if TYPE_CHECKING:
    from napari_mgbpv2.conversion.job import ConversionPlan
    from napari_mgbpv2.io.writers.ome_zarr import StorageBackend

Event = Callable[[], None]

_PACKAGE = "napari-mgbpv2"
_AT_ONCE = 8  # workers that are checked at the same time; each gets the whole work, which may hold an image
_ATTEMPTS = 3  # to reach a worker that the scheduler knows
_SHARED = "source and destination must be on storage that all of them share"
_SHORT = 12  # digits of a hash in a message


@dataclass(frozen=True)
class Requirements:
    """Requirements that a worker must meet.

    Parameters
    ----------
    model
        Path and SHA-256 of the model file; None for a network that travels with the work.
    source
        Path of the source; None if it is not a local file.
    storage
        The output.
    """

    model: tuple[str, str] | None
    source: str | None
    storage: StorageBackend

    @classmethod
    def of(cls, prepared: ConversionPlan, storage: StorageBackend) -> Requirements:
        """Return the requirements of a conversion."""
        from napari_mgbpv2.runtime import ModelFile

        model, source = prepared.plan.compute_tile.model, prepared.source.path
        file = (str(model.path), model.sha256) if isinstance(model, ModelFile) else None
        return cls(file, source if os.path.isabs(source) and os.path.exists(source) else None, storage)

    def fault(self) -> str | None:
        """Return the first requirement that this process does not meet, and the remedy; None if it meets all."""
        if self.model is not None and (fault := _fault_of_model(*self.model)):
            return fault
        if self.source is not None and not os.path.exists(self.source):
            return f"does not see the source {display_path(self.source)}: {_SHARED}"
        if not self.storage.exists_here():
            return f"does not see the unfinished output of {self.storage.destination}: {_SHARED}"
        return None


def _fault_of_model(path: str, sha256: str) -> str | None:
    if find_model_by_hash(path, sha256) is not None:
        return None
    if not os.path.isfile(path):
        return f"has no model file {path}: copy it there, or use one on storage that all workers share"
    found = file_hash(path)
    return (
        f"has another model file at {path}, SHA-256 {found[:_SHORT]}... instead of {sha256[:_SHORT]}...: "
        "copy the right one there"
    )


class WorkerChecks:
    """The workers of a cluster, and those among them that can be used.

    Each check runs in a thread of its own, so that a worker that hangs does not delay the others.

    Parameters
    ----------
    client
        Client of the cluster.
    requirements
        Requirements that a worker must meet.
    name, payload
        Of the plugin that a worker gets when it has passed.
    put_event
        Takes the outcome of a check, a function to be called by the thread that uses this object.
    note
        Called with a sentence for each worker that is refused while others work.
    """

    def __init__(
        self,
        client: Any,
        requirements: Requirements,
        name: str,
        payload: bytes,
        put_event: Callable[[Event], None],
        note: Callable[[str], None],
    ) -> None:
        self._client, self._requirements, self._name, self._payload = client, requirements, name, payload
        self._put_event, self._note = put_event, note
        self._known: dict[str, int] = {}  # threads of each worker that the scheduler knows
        self._passed: set[str] = set()
        self._checking: set[str] = set()
        self._refused: dict[str, str] = {}
        self._unreported: list[str] = []
        self._unreached: Counter[str] = Counter()
        self._slots = threading.Semaphore(_AT_ONCE)

    @property
    def usable(self) -> dict[str, int]:
        """Threads of each worker that has passed, by its address."""
        return {worker: threads for worker, threads in self._known.items() if worker in self._passed}

    @property
    def are_all_refused(self) -> bool:
        """Whether there are workers, and none of them can be used."""
        return bool(self._refused) and not self._passed and not self._checking

    @property
    def refusals(self) -> Sequence[str]:
        """Name, reason and remedy for each worker that is refused."""
        return tuple(self._refused.values())

    def update(self, known: dict[str, int]) -> None:
        """Update the known workers, and check the new ones.

        Parameters
        ----------
        known
            Number of threads of each worker, by its address.
        """
        self._known = dict(known)
        self._passed &= known.keys()
        for worker in self._refused.keys() - known.keys():
            del self._refused[worker]
        for worker in known.keys() - self._passed - self._checking - self._refused.keys():
            self._checking.add(worker)
            threading.Thread(target=self._check, args=(worker,), name="mgbpv2-check", daemon=True).start()

    def forget(self, worker: str) -> None:
        """Check a worker again: its process is another one than the one that has passed."""
        self._passed.discard(worker)

    def close(self) -> None:
        """Remove the plugin from all workers, without waiting for those that do not answer."""
        workers = list(self.usable)
        if workers and self._client.status == "running":
            threading.Thread(target=self._remove, args=(workers,), daemon=True).start()

    def _remove(self, workers: list[str]) -> None:
        from napari_mgbpv2.conversion.worker_plugin import remove_plugin

        with contextlib.suppress(Exception):  # the cluster may be closing
            self._client.run(remove_plugin, self._name, workers=workers, on_error="ignore")

    def _check(self, worker: str) -> None:
        try:
            with self._slots:
                fault = self._fault(worker)
            name = "" if fault is None else self._name_of(worker)
        except Exception:  # the worker or the scheduler is gone: the next look at the cluster shows
            self._put_event(partial(self._take_silence, worker))
            return
        self._put_event(partial(self._take, worker, name, fault))

    def _take(self, worker: str, name: str, fault: str | None) -> None:
        self._checking.discard(worker)
        self._unreached.pop(worker, None)
        if fault is None:
            self._passed.add(worker)
        else:
            called = f" (name {name})" if name and name != worker else ""
            self._refused[worker] = f"worker {worker}{called} {fault}"
            self._unreported.append(self._refused[worker])
        if self._passed:  # if none passes, an error names them
            for refusal in self._unreported:
                self._note(f"{refusal}; the other workers continue without it")
            self._unreported.clear()

    def _take_silence(self, worker: str) -> None:
        self._unreached[worker] += 1
        if self._unreached[worker] >= _ATTEMPTS:
            self._take(worker, "", "cannot be reached by the scheduler: check the network between them")
        else:
            self._checking.discard(worker)

    def _fault(self, worker: str) -> str | None:
        """Check and prepare a worker. Return the reason if it cannot be used, else None.

        Raises
        ------
        OSError
            It does not answer.
        """
        from napari_mgbpv2.conversion.worker_plugin import prepare_worker

        needed = version(_PACKAGE)
        found = self._run(worker, version, _PACKAGE)  # of the standard library: any worker has it
        if isinstance(found, PackageNotFoundError):
            return f"lacks {_PACKAGE}: install {_PACKAGE}=={needed} where it runs, and restart it"
        if found != needed:
            return f"has {_PACKAGE} {found}, not {needed}: install {_PACKAGE}=={needed} where it runs, and restart it"
        fault: str | Exception | None = self._run(worker, prepare_worker, self._requirements, self._name, self._payload)
        if isinstance(fault, Exception):
            return (
                f"cannot do the work ({type(fault).__name__}: {' '.join(str(fault).split())}): install the same "
                "packages as here where it runs, and restart it"
            )
        return fault

    def _run(self, worker: str, function: Callable[..., Any], *arguments: Any) -> Any:
        found = self._client.run(function, *arguments, workers=[worker], on_error="return")[worker]
        if isinstance(found, OSError):
            raise found
        return found

    def _name_of(self, worker: str) -> str:
        return str(self._client.scheduler_info()["workers"].get(worker, {}).get("name", ""))
