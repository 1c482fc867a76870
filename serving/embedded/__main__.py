"""Serve SavedModels as tensorflow_model_server does.

    python -m serving.embedded --model_name=fashion_mnist --model_base_path=serving/models/fashion_mnist \
        --port=8500 --rest_api_port=8501

Ends with 0 after SIGTERM or SIGINT, with 2 for a wrong command line, with 1 where it cannot serve.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
from typing import NoReturn

from serving.embedded import flags, memory, setup
from serving.embedded.errors import ServingError


def main() -> int:
    """Run the server; returns the exit code."""
    try:
        parsed = flags.parse(sys.argv[1:])
    except flags.HelpRequested:
        print(flags.usage())
        return 0
    except flags.FlagError as error:
        return _fail(str(error), 2)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)  # until the server is up and ends gracefully
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s", stream=sys.stderr)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        prepared = setup.prepare(parsed)
        memory.keep_freed_tensors()
        _import_tensorflow()
        import uvloop

        from serving.embedded.server import ModelServer  # not at the top: TensorFlow takes seconds to import

        # No asyncio.Runner: its end waits for threads that may still be loading.
        uvloop.new_event_loop().run_until_complete(ModelServer(parsed, prepared).run())
    except (ServingError, OSError) as error:
        return _fail(str(error), 1)
    return 0


def _import_tensorflow() -> None:
    """Import TensorFlow without Keras, which nothing here needs and which takes half of the time.

    What an import makes stays until the end: the garbage collector need not look through it, neither now nor later,
    when it would hold up requests.
    """
    gc.disable()
    # What goes wrong comes as an exception; a line for each bad request and each missing GPU says nothing new.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # By itself TensorFlow uses oneDNN only on some processors of Intel; on an AMD EPYC it spares a tenth of a request.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    hidden = sys.modules.setdefault("keras", None)  # type: ignore[arg-type]  # None: as if it were not installed
    import tensorflow  # noqa: F401

    if hidden is None:
        del sys.modules["keras"]
    gc.freeze()
    gc.enable()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # deprecation notes of the TF1 loader


def _leave(number: int, frame: object) -> NoReturn:
    os._exit(0)


def _fail(message: str, code: int) -> int:
    print(f"Failed to start server. Error: {message}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    result = main()
    with contextlib.suppress(OSError):  # a full disk changes nothing about the result
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(result)  # threads that still load or poll must not hold up the end
