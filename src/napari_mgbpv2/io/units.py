"""Units of length and time in common spellings, as NGFF long names."""

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
    """Return the NGFF long name of a unit in any common spelling ("um", "µm", "micron", "ms"), or None."""
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
    """Return whether a long name is a unit of time; otherwise it is a unit of length."""
    return unit in _TIMES


def is_screen_resolution(dots_per_inch: float) -> bool:
    """Return whether a resolution is a placeholder of writers without a known pixel size."""
    return dots_per_inch <= 1 or any(abs(dots_per_inch - screen) < 0.5 for screen in _SCREEN_DPI)


def convert_length(number: float, unit: object, to: object) -> float | None:
    """Convert a length or time to another unit; None if a unit is unknown or the units are of different kinds."""
    given, target = long_unit(unit), long_unit(to)
    if given is None or target is None or is_time(given) != is_time(target):
        return None
    return number if given == target else number * _in_base_unit(given) / _in_base_unit(target)


def _in_base_unit(unit: str) -> float:
    """Return the size of a unit in metres or seconds."""
    if unit in _OTHER_FACTORS:
        return _OTHER_FACTORS[unit]
    base = "second" if is_time(unit) else "meter"
    return 10.0 ** _EXPONENTS[unit.removesuffix(base)]


_EXPONENTS = {
    "yocto": -24, "zepto": -21, "atto": -18, "femto": -15, "pico": -12, "nano": -9, "micro": -6, "milli": -3,
    "centi": -2, "deci": -1, "": 0, "deca": 1, "hecto": 2, "kilo": 3, "mega": 6, "giga": 9, "tera": 12, "peta": 15,
    "exa": 18, "zetta": 21, "yotta": 24,
}  # fmt: skip
_OTHER_FACTORS = {
    "minute": 60.0, "hour": 3600.0, "day": 86_400.0, "angstrom": 1e-10, "foot": 0.3048, "inch": 0.0254,
    "mile": 1609.344, "parsec": 3.0856775814913673e16, "yard": 0.9144,
}  # fmt: skip
