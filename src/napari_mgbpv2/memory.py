"""Memory available to this process, within the limits of its Linux control groups.

Containers and batch systems (Docker, Kubernetes, Slurm, systemd) limit the memory of a process by control groups. The
operating system still reports the memory of the whole machine, and kills a process that exceeds the limit of its group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_UNLIMITED = 2**60  # version 1 writes a number near 2**63 for no limit
# File names in versions 2 and 1: the limits, the usage, and the part of the usage that is inactive cached files.
_NAMES = {
    "cgroup2": (("memory.max", "memory.high"), "memory.current", "inactive_file"),
    "cgroup": (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
}


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process can allocate without swapping and without being killed.

    Parameters
    ----------
    root
        Folder of ``proc`` and of the mounted control groups.
    """
    import psutil

    return min([int(psutil.virtual_memory().available), *_left_in_groups(root)])


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield the bytes left in each control group that limits this process: its own and its ancestors."""
    for kind, group in _groups(root):
        limits, used_name, file_name = _NAMES[kind]
        found = [limit for name in limits if (limit := _number(group / name)) is not None and limit < _UNLIMITED]
        used = _number(group / used_name)
        if found and used is not None:
            # The kernel frees cached files before it kills a process.
            yield max(0, min(found) - max(0, used - _entry(group / "memory.stat", file_name)))


def _groups(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the kind of hierarchy and the folder of each group that this process is in, innermost first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = (root / "proc/self/mountinfo").read_text().splitlines()
    except (OSError, UnicodeDecodeError):  # another operating system, or hidden
        return
    paths: dict[str, str] = {}
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            paths["cgroup2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup"] = path
    for line in mounts:
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), (after.split() or [""])
        if len(fields) < 5 or kind not in paths or (kind == "cgroup" and "memory" not in rest[-1].split(",")):
            continue
        top = root / fields[4].replace(r"\040", " ").lstrip("/")
        yield from ((kind, folder) for folder in _folders(top, fields[3], paths[kind]))


def _folders(top: Path, mounted: str, path: str) -> list[Path]:
    """Return the folders of a group and of its ancestors, up to the one mounted at ``top``."""
    own = PurePosixPath(path)
    # A container may see its own group as the top, although the path is that of the machine.
    inside = own.relative_to(mounted) if own.is_relative_to(mounted) else PurePosixPath()
    folder = top / inside if ".." not in inside.parts and (top / inside).is_dir() else top
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]


def _number(file: Path) -> int | None:
    """Return the number in a file; None for "max" or without a number."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _entry(file: Path, name: str) -> int:
    """Return a number by its name from a file with a name and a number per line; 0 if missing."""
    try:
        lines = file.read_text().splitlines()
    except (OSError, ValueError):
        return 0
    return next((int(parts[1]) for line in lines if (parts := line.split())[:1] == [name] and len(parts) > 1), 0)
