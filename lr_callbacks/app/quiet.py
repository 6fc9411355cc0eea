"""What a person cannot act on is kept from the terminal; the log of the job has it all."""

import logging
import re
import warnings

#: Said by Lightning at each training; the first two lines of every run, and an advertisement.
NOISE = re.compile(
    r"(GPU|TPU|HPU|IPU) available|using: \d+ (TPU|HPU|IPU)|💡|`Trainer\.\w+` stopped|"
    r"LOCAL_RANK: |Seed set to|Restor(ing states|ed all states)"
)

#: Of Lightning against a newer torch; and our callback records each step whatever is logged.
WARNINGS = (r".*LeafSpec", r"(?s).*is smaller than the logging interval", r".*many workers")


class Quiet(logging.Filter):
    """Lets pass what a person may act on.

    >>> Quiet().filter(logging.makeLogRecord({"msg": "GPU available: False, used: False"}))
    False
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        return not NOISE.search(record.getMessage())


def be_quiet() -> None:
    """Send the loggers of others to that of the job, and silence what is known to be harmless."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True
    # Its tables are made and moved on without a person, as fonts are looked for.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    for pattern in WARNINGS:
        warnings.filterwarnings("ignore", pattern)
