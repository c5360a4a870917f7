"""What is told in the end of calls that were interrupted."""


class Storms:
    """How many calls were made while signals came, and how many failed with EINTR."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, kind: str, engine: str, output: str, interrupted: int) -> None:
        """Take note of what the probe has printed."""
        made, before = self._counts.get(f"{kind}, {engine}", (0, 0))
        made += sum(int(line.split()[1]) for line in output.splitlines())
        self._counts[f"{kind}, {engine}"] = made, before + interrupted

    def lines(self) -> list[str]:
        """Return one for each kind of signals and engine where there were any."""
        return [
            f"  {name}: {interrupted} of {made} calls"
            for name, (made, interrupted) in self._counts.items()
            if interrupted
        ]
