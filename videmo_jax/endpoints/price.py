"""What asking an endpoint will cost, before it is asked: tokens are guessed from characters."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources

from videmo_jax.files.errors import UserError

# English has some four characters a token, other scripts about one: a rough guess.
CHARACTERS_A_TOKEN = 4.0
TOKENS_OF_A_MESSAGE = 8  # around each message: role and marks


class PriceError(UserError):
    """The price is not to be paid, or no price at all; the message says why."""


@dataclass(frozen=True)
class Price:
    """US dollars for a million tokens of prompts and of replies."""

    prompt: float
    reply: float


@dataclass(frozen=True)
class Estimate:
    """What is about to be asked.

    Attributes:
      model: that is asked.
      requests: that will be sent: not those in the cache.
      cached: questions whose reply is there, or will be another one's.
      tokens_in: of all prompts, guessed.
      tokens_out: of all replies, guessed.
      price: of the model; None where nobody knows.
    """

    model: str
    requests: int
    cached: int
    tokens_in: int
    tokens_out: int
    price: Price | None

    @property
    def dollars(self) -> float | None:
        """The whole price, guessed."""
        if self.price is None:
            return None
        return (self.tokens_in * self.price.prompt + self.tokens_out * self.price.reply) / 1e6

    def __str__(self) -> str:
        """One line for a terminal."""
        cost = "price unknown: give it with --judge-price" if self.dollars is None else f"about {self.dollars:.2f} USD"
        return (
            f"{self.model}: {self.requests:,} requests ({self.cached:,} more cost nothing), about {self.tokens_in:,} "
            f"tokens of prompts and {self.tokens_out:,} of replies; {cost}"
        )

    def check(self, most: float | None) -> None:
        """Refuses what costs more than `most` US dollars; None allows everything.

        Raises:
          PriceError: the estimate is higher, or there is a limit and no known price.
        """
        if most is None or not self.requests:
            return
        if self.dollars is None:
            raise PriceError(
                f"--judge-max-price {most:g}: the price of {self.model} is not known; give it with --judge-price "
                "PROMPT,REPLY (US dollars for a million tokens; 0,0 for a server of your own)"
            )
        if self.dollars > most:
            raise PriceError(
                f"judging would cost about {self.dollars:.2f} USD, more than --judge-max-price {most:g}; nothing was "
                "asked. Raise it, or choose fewer --tasks"
            )


@dataclass
class Budget:
    """What asking may cost, and has cost so far, by the endpoint's own count of tokens.

    Attributes:
      price: of the model.
      most: US dollars.
      spent: likewise.
      paid: requests.
    """

    price: Price
    most: float
    spent: float = 0.0
    paid: int = 0

    def pay(self, tokens_in: int, tokens_out: int) -> None:
        """Takes what a request has cost, its failed attempts included."""
        self.spent += (tokens_in * self.price.prompt + tokens_out * self.price.reply) / 1e6
        self.paid += 1

    def allows(self, requests: int) -> bool:
        """Whether so many more, as dear as those before, stay within it."""
        return self.spent + requests * self.spent / max(self.paid, 1) <= self.most

    def __str__(self) -> str:
        """For a message."""
        return f"{self.paid:,} requests have cost {self.spent:.2f} USD, and {self.most:g} are allowed"


def read_price(text: str) -> Price:
    """Reads `PROMPT,REPLY`, both in US dollars for a million tokens.

    Raises:
      PriceError: the text has another form.
    """
    try:
        prompt, reply = (float(part) for part in text.split(","))
    except ValueError:
        prompt = reply = math.nan
    if not (0 <= prompt < math.inf and 0 <= reply < math.inf):
        raise PriceError(f"--judge-price {text!r}: expected PROMPT,REPLY in US dollars for a million tokens: 2.5,10")
    return Price(prompt, reply)


def known_price(model: str) -> Price | None:
    """The list price of a model; None of one that the list lacks."""
    file = resources.files(__package__) / "prices.json"
    held = json.loads(file.read_text(encoding="utf-8"))["models"].get(model)
    return held and Price(*held)


def count_tokens(texts: Iterable[str]) -> int:
    """Tokens of these messages, guessed: wide scripts count a token a character."""
    total = 0
    for text in texts:
        narrow = len(text.encode("ascii", "ignore"))
        total += TOKENS_OF_A_MESSAGE + math.ceil(narrow / CHARACTERS_A_TOKEN) + len(text) - narrow
    return total
