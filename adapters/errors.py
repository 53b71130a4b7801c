"""What an adapter cannot read. In a module of their own: dialects may be compiled, exceptions not."""


class AdapterError(Exception):
    """An upstream event that cannot be read. Nothing of it may reach the client."""

    def __init__(self, *args: object, limit: str = "") -> None:
        super().__init__(*args)
        self.limit = limit  # that it is beyond, if that is why


class UpstreamReportedError(AdapterError):
    """A readable event in which the upstream says that it failed."""
