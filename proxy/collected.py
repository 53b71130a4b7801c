"""A client of a `Drive` that gets its answer whole."""


class Collected:
    """A client that gets all at once, when it is over."""

    is_full = False

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.chunks.append(data)

    def write_last(self, data: bytes) -> None:
        self.write(data)

    def beat(self) -> None:
        """It sees nothing of the wait."""

    async def drain(self) -> None:
        """It is never full."""
