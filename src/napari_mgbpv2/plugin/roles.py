"""Marks of the layers that the plugin makes, kept in their metadata: what a layer is and may be used for."""

from __future__ import annotations

from typing import Any

KEY = "mgbpv2"
ROLE = "role"

PREVIEW, RESULT, INSPECTION = "preview", "result", "inspection"


def marked(role: str, **facts: Any) -> dict[str, Any]:
    """Return the metadata of a layer that the plugin makes.

    Parameters
    ----------
    role
        `PREVIEW`, `RESULT` or `INSPECTION`.
    facts
        What else is to be known of it: model, scale, noise, ...
    """
    return {KEY: {ROLE: role, **facts}}


def facts_of(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what the metadata of a layer say of how it was made, without its role; empty for other layers."""
    facts = metadata.get(KEY)
    return {name: fact for name, fact in facts.items() if name != ROLE} if isinstance(facts, dict) else {}


def role_of(layer: Any) -> str:
    """Return the role of a layer; empty where the plugin has not made it."""
    facts = layer.metadata.get(KEY)
    return str(facts.get(ROLE, "")) if isinstance(facts, dict) else ""


def is_source(layer: Any) -> bool:
    """Whether a layer is an image to upscale: the user's own, or a result; no preview, filter or map."""
    return role_of(layer) in ("", RESULT)
