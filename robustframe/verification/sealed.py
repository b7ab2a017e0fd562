"""Is the run the one whose seal was printed, and do the tables beside it say what it says."""

import re

from robustframe.errors import InputError
from robustframe.report import render, robustness_table
from robustframe.runs import Run, open_run
from robustframe.runs.record import RECORD, SEAL, read_record
from robustframe.runs.run import SEAL_DIGITS
from robustframe.verification.findings import Finding, VerifiedPart, check, left_out


def check_seal(run: Run, given: str | None) -> VerifiedPart:
    """Compare the seal of a run with the one in its folder, and with the one that a paper, a table or a board printed.

    Args:
        run: the run.
        given: what was printed, at least 16 digits of it; ``None`` where nobody has any.

    Raises:
        InputError: for what is no seal.
    """
    if given is not None and not re.fullmatch(rf"[0-9a-f]{{{SEAL_DIGITS},64}}", str(given)):
        raise InputError(f"--seal {given} must be {SEAL_DIGITS} to 64 hexadecimal digits, as a table prints them")
    findings = [Finding(SEAL, None, run.broken_seal)] if run.broken_seal else []
    record, content = read_record(run.folder)
    if record.to_json().encode() != content:
        text = "it is not written as an evaluation writes it: a key appears twice, in another order or spelling"
        findings.append(Finding(RECORD, None, text))
    if given is not None and not run.seal.startswith(given):
        text = f"its seal is {run.seal[: len(given)]}, not {given}: something was edited"
        findings.append(Finding(RECORD, None, text))
    asked = "as was asked for" if given else "to be compared with the one that was printed"
    return check("seal", f"{run.seal[:SEAL_DIGITS]}, {asked}", findings)


def check_tables(run: Run) -> VerifiedPart:
    """Write the tables beside a run again, and compare."""
    files = [path for path in (run.folder / f"table.{format}" for format in ("md", "tex", "csv")) if path.is_file()]
    if not files:
        return check("tables", "there are none beside the run", [])
    try:
        table = robustness_table(open_run(run.folder))
    except InputError:
        return left_out("tables", "the run is not whole, so that none can be written again")
    findings = [
        Finding(path.name, None, "it is not the table of this run")
        for path in files
        if path.read_bytes() != render(table, path.suffix.removeprefix(".")).encode()
    ]
    return check("tables", ", ".join(path.name for path in files), findings)
