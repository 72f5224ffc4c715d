"""`mgbpv2-upscale --verify`: whether results are all there, and as they were written."""

from __future__ import annotations

import json
from collections.abc import Sequence

from napari_mgbpv2.addresses import display_path, expand_path, parse_destination
from napari_mgbpv2.cli.command import error_message
from napari_mgbpv2.cli.output import write_error, write_line, write_text
from napari_mgbpv2.conversion.verification import contents_of, faults_of
from napari_mgbpv2.errors import MGBPv2Error


def verify(results: Sequence[str], *, command: str, quiet: bool = False, as_json: bool = False) -> int:
    """Verify results, and say of each what is wrong with it: a line a fault on standard error.

    Parameters
    ----------
    results
        Paths or addresses of what this package has written.
    command
        Name of the command, for the lines.
    quiet
        Whether nothing is said of results without faults.
    as_json
        Whether all is said as lines of JSON, on standard output.

    Returns
    -------
    int
        Exit status: 0, or 1 where something is wrong.
    """
    status = 0
    for result in results:
        destination, name = parse_destination(expand_path(result)), display_path(result)
        count = 0
        try:
            for fault in faults_of(destination):
                count += 1
                if as_json:
                    write_text(json.dumps({"event": "fault", "result": name, "fault": fault}))
                else:
                    write_error(command, f"{name}: {fault}")
        except (MGBPv2Error, OSError) as error:
            count += 1
            write_error(command, error_message(error))
        if count:
            status = 1
        elif as_json:
            write_text(json.dumps({"event": "verified", "result": name, "contents": contents_of(destination)}))
        elif not quiet:
            write_line(f"{name}: nothing is wrong: {contents_of(destination)}")
    return status
