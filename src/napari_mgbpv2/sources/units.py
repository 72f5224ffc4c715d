"""Units in any of their usual spellings, as the NGFF long names."""

from __future__ import annotations

_PREFIXES = {
    "y": "yocto", "z": "zepto", "a": "atto", "f": "femto", "p": "pico", "n": "nano", "u": "micro", "µ": "micro",
    "m": "milli", "c": "centi", "d": "deci", "": "", "da": "deca", "h": "hecto", "k": "kilo", "M": "mega",
    "G": "giga", "T": "tera", "P": "peta", "E": "exa", "Z": "zetta", "Y": "yotta",
}  # fmt: skip
_SCREEN_DPI = (72.0, 96.0)
_TIMES = {prefix + "second" for prefix in _PREFIXES.values()} | {"minute", "hour", "day"}
_LENGTHS = {prefix + "meter" for prefix in _PREFIXES.values()} | {
    "angstrom", "foot", "inch", "mile", "parsec", "yard",
}  # fmt: skip
_LONG_NAMES = _TIMES | _LENGTHS
_SYMBOLS = {
    short + symbol: long + base
    for short, long in _PREFIXES.items()
    for symbol, base in (("m", "meter"), ("s", "second"))
}
_OTHER_NAMES = {
    "micron": "micrometer", "sec": "second", "msec": "millisecond", "usec": "microsecond", "µsec": "microsecond",
    "min": "minute", "h": "hour", "hr": "hour", "d": "day", "å": "angstrom", "in": "inch", '"': "inch", "ft": "foot",
    "yd": "yard", "mi": "mile", "pc": "parsec",
}  # fmt: skip


def long_unit(unit: object) -> str | None:
    """Return the NGFF long name of a unit written in any usual way ("um", "µm", "micron", "ms"), or None."""
    if not isinstance(unit, str):
        return None
    # ImageJ writes the micro sign as an escape; Greek mu and the micro sign look alike.
    symbol = unit.replace("\\u00B5", "µ").replace("\u03bc", "µ").strip().rstrip("\0")
    if symbol in _SYMBOLS:
        return _SYMBOLS[symbol]
    word = symbol.lower().replace("metre", "meter")
    for name in (word, word.removesuffix("s"), word.removesuffix("es")):
        if name in _LONG_NAMES or name in _OTHER_NAMES:
            return _OTHER_NAMES.get(name, name)
    return "foot" if word == "feet" else None


def is_time(unit: str) -> bool:
    """Tell whether a long name is one of a time; else it is one of a length."""
    return unit in _TIMES


def is_screen_resolution(dots_per_inch: float) -> bool:
    """Return whether a resolution is what writers fill in that know of no pixel size, or none at all."""
    return dots_per_inch <= 1 or any(abs(dots_per_inch - screen) < 0.5 for screen in _SCREEN_DPI)
