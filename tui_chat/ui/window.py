"""Which messages of a conversation are mounted."""

from tui_chat.types import Conversation, Message

PAGE = 12
"""Messages that are mounted at a time; many mounted replies make every action slow."""
MOST_MOUNTED = 40


class Window:
    """The mounted messages: those from `first` on without the gap, which parts them in two.

    The end is always mounted, for the reply that comes; who reads far above it has a gap between.
    Places are counted in `messages`, the loaded part of the branch.
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self.messages: tuple[Message, ...] = ()
        self.has_earlier = False
        self.first = 0
        self.gap = range(0)

    def show_end(self, conversation: Conversation) -> range:
        """Start over with the last page; returns what is to be mounted."""
        self.messages, self.has_earlier = conversation.messages, conversation.has_earlier
        self._places = {}
        self.first = max(0, len(self.messages) - PAGE)
        self.gap = range(0)
        return range(self.first, len(self.messages))

    def update(self, conversation: Conversation) -> None:
        """Take over what has come since, at the end or, once loaded, before the first message."""
        old, self._places = self.messages, {}
        self.messages, self.has_earlier = conversation.messages, conversation.has_earlier
        if old and (shift := self.place(old[0].id)):
            self.first += shift
            self._part(self.gap.start + shift, self.gap.stop + shift)

    def _part(self, start: int, stop: int) -> None:
        self.gap = range(start, stop) if start < stop else range(0)

    @property
    def is_at_beginning(self) -> bool:
        """Whether the first message of the conversation is mounted."""
        return self.first == 0 and not self.has_earlier

    def place(self, message_id: str) -> int | None:
        """Where a message stands; None when it is not among them."""
        if not self._places:
            self._places = {message.id: at for at, message in enumerate(self.messages)}
        return self._places.get(message_id)

    def grow_up(self, count: int = PAGE) -> range:
        """Take in messages before the first; returns what is to be mounted."""
        stop = self.first
        self.first = max(0, stop - count)
        return range(self.first, stop)

    def grow_down(self) -> range:
        """Take in the first page of the gap; returns what is to be mounted."""
        grown = range(self.gap.start, min(self.gap.start + PAGE, self.gap.stop))
        self._part(grown.stop, self.gap.stop)
        return grown

    def jump_to(self, place: int) -> range:
        """Take in what is around a place before the mounted end, in place of what was before it.

        Returns what is to be mounted, once everything before the end is unmounted.
        """
        end = self.gap.stop if self.gap else self.first
        self.first = max(0, place - PAGE // 2)
        stop = min(self.first + MOST_MOUNTED, end)
        self._part(stop, end)
        return range(self.first, stop)

    def fork(self, conversation: Conversation, place: int) -> tuple[range, range]:
        """Show another branch, which is the same before `place`, and there what was mounted.

        Returns what is to be mounted from there on: in two parts where it is long.
        """
        self.update(conversation)
        if self.gap and place >= self.gap.stop:
            self.drop_above(self.gap.stop)
        end = len(self.messages)
        stop = min(end, place + MOST_MOUNTED)
        self._part(stop, end - PAGE)
        return range(place, stop), range(self.gap.stop if self.gap else stop, end)

    def drop_above(self, place: int) -> None:
        """Let go of what is before `place`."""
        self.first = place
        if place >= self.gap.stop:
            self.gap = range(0)

    def drop_below(self) -> None:
        """Let go of what is neither near the first message nor at the end."""
        start = self.first + MOST_MOUNTED
        stop = self.gap.stop if self.gap else len(self.messages) - PAGE
        if start < (self.gap.start if self.gap else stop):
            self._part(start, stop)

    def is_mounted(self, place: int) -> bool:
        """Whether the message at `place` belongs on the page."""
        return place >= self.first and place not in self.gap
