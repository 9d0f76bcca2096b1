"""What the commands of launch/ share: an error that a user can mend ends them in one line and a non-zero exit code."""

import argparse
import gc
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from videmo_jax.files.errors import UserError
from videmo_jax.installed import check_installed


def fail(message: str, who: str = "error") -> NoReturn:
    """One line on stderr that begins with `who`, and exit code 1."""
    sys.exit(f"{who}: {' '.join(message.split())}")


def positive(text: str) -> int:
    """A whole number from 1 on: a `type` of argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return number


@contextmanager
def one_line(*, stopped: str = "stopped", too_large: str = "") -> Iterator[None]:
    """Errors in the input or the surroundings end in one line; faults of the program keep their traceback.

    Args:
      stopped: what Ctrl-C leaves behind.
      too_large: what to do where the device has too little memory; empty where no flag mends that.
    """
    try:
        check_installed()
        yield
    except (UserError, OSError) as error:
        fail(str(error))
    except RuntimeError as error:
        if not too_large or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fail(f"the device has too little memory; {too_large}")
    except KeyboardInterrupt:
        sys.exit(stopped)


def absl_parser(command: str) -> Callable[[Sequence[str]], Sequence[str]]:
    """The `flags_parser` of `app.run` for a command with a config: a wrong flag ends in one line, help in code 0."""
    from absl import flags

    def parse(argv: Sequence[str]) -> Sequence[str]:
        gc.set_threshold(50_000)  # imports and traces make millions of objects that stay: a start takes a tenth less
        try:
            check_installed()
            return flags.FLAGS(list(argv))
        except SystemExit:  # --help and its kin, which absl ends with 1
            sys.exit(0)
        except (KeyError, AttributeError) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            if "ml_collections" not in Path(place.filename).parts:  # a fault of the recipe's own code
                if isinstance(error, AttributeError):
                    raise
                fail(f"{place.filename}, line {place.lineno}: there is no {error}", command)
            # An unknown last name comes as an AttributeError that holds the text of a KeyError, quoted once more.
            said = error.__cause__ or error.__context__ or error if isinstance(error, AttributeError) else error
            name, _, meant = str(said.args[0]).partition("\n")  # and perhaps the one that was meant
            fail(f"the recipe has no field {name}. {meant}" if name.startswith("'") else name, command)
        except (flags.Error, ValueError, OSError) as error:
            fail(str(error), command)

    return parse
