"""One conversation about videos: the typed form of a line of Emo-CFG."""

from dataclasses import dataclass

ROLES = ("system", "user", "assistant")
VIDEO_TAG, IMAGE_TAG = "<video>", "<image>"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `role` is one of `ROLES`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A checked sample: its last turn is the assistant's, and every `<video>` of a user's turn has its path.

    Attributes:
      id: annotation file and index in it, such as `train/attribute/full/MEAD_ID.json#12`.
      file: the annotation file relative to `jsons/`, in posix form.
      messages: the turns in order.
      videos: posix paths relative to the dataset's root, in the order of the tags.
      source: what the open-attribute QA brings (`..._QA_<Aspect>`); None elsewhere.
    """

    id: str
    file: str
    messages: tuple[Message, ...]
    videos: tuple[str, ...] = ()
    source: str | None = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All turns before the last answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The text of the last turn, the assistant's."""
        return self.messages[-1].content

    @property
    def question(self) -> str:
        """The text of the first user's turn, tags included: prediction files are joined by it."""
        return next(message.content for message in self.messages if message.role == "user")
