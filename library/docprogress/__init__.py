"""Report the progress of a document to the browsers that watch it.

```python
import docprogress

publisher = docprogress.connect()  # from the environment, or by keywords
with publisher.track("invoice-7") as tracker:
    tracker.start(total=12)
    for page in pages:
        work_on(page)
        tracker.advance()
```

Importing this package imports nothing else: botocore is loaded at the first use of the table.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from docprogress.document import DocumentState, ErrorCode, Failure, Status
    from docprogress.errors import (
        AlreadyProcessed,
        BeingProcessed,
        Cancelled,
        SettingsError,
        StartRefused,
        StoreUnavailable,
        Superseded,
        TimeLimitExceeded,
    )
    from docprogress.posting.report import DeliveryRefused, DeliveryReport
    from docprogress.publisher import Publisher, connect
    from docprogress.tracker import ProgressTracker

__all__ = [
    "AlreadyProcessed",
    "BeingProcessed",
    "Cancelled",
    "DeliveryRefused",
    "DeliveryReport",
    "DocumentState",
    "ErrorCode",
    "Failure",
    "ProgressTracker",
    "Publisher",
    "SettingsError",
    "StartRefused",
    "Status",
    "StoreUnavailable",
    "Superseded",
    "TimeLimitExceeded",
    "connect",
]

_HOMES = {
    "document": ("DocumentState", "ErrorCode", "Failure", "Status"),
    "errors": (
        "AlreadyProcessed",
        "BeingProcessed",
        "Cancelled",
        "SettingsError",
        "StartRefused",
        "StoreUnavailable",
        "Superseded",
        "TimeLimitExceeded",
    ),
    "posting.report": ("DeliveryRefused", "DeliveryReport"),
    "publisher": ("Publisher", "connect"),
    "tracker": ("ProgressTracker",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
