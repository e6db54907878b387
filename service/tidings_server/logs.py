"""How the server logs: one event a line, for people on a terminal and as JSON elsewhere."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor


def configure_logs(log_format: str) -> None:
    """Log to standard error as `text` or `json`; `auto` is text where a person is likely to read it."""
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    # The values of local variables stay out of the log: there are callers' data and keys among them.
    plain = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    renderer: Processor = plain if as_text else structlog.processors.JSONRenderer()
    processors: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not as_text:
        tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors.append(structlog.processors.ExceptionRenderer(tracebacks))
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
