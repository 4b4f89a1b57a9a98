"""The texts of an unfinished decode, as a file that grows."""

import json
import zlib
from operator import itemgetter
from pathlib import Path

from dylora.files import write_lines, writing


class DecodeLog:
    """The texts decoded so far by number of input: JSON lines, only ever appended to.

    The first line names what the texts belong to. A last line that a kill left unfinished, and a
    file of other texts, are dropped. Of a damaged file what comes before the damage is kept.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.texts: dict[int, str] = {}
        header = json.dumps({"key": key})
        # The last piece follows the last line's end: nothing, or a line that was cut off.
        lines = path.read_text("utf-8", errors="replace").split("\n")[:-1] if path.exists() else []
        if lines and lines[0] == header:
            for number, line in enumerate(lines[1:], start=2):
                item = self._item(line)
                if item is None:
                    print(f"{path}, line {number} is damaged: decoded anew from there")
                    break
                self.texts |= item
        write_lines(path, [header, *(self._line(*item) for item in self.texts.items())])

    def append(self, texts: dict[int, str]) -> None:
        self.texts |= texts
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.writelines(self._line(*item) + "\n" for item in texts.items())

    @staticmethod
    def _line(number: int, text: str) -> str:
        return json.dumps({"input": number, "text": text, "crc": _checksum(number, text)})

    @staticmethod
    def _item(line: str) -> dict[int, str] | None:
        """What a line holds; None if it is damaged."""
        try:
            number, text, crc = itemgetter("input", "text", "crc")(json.loads(line))
        except (ValueError, KeyError, TypeError):
            return None
        return {number: text} if crc == _checksum(number, text) else None


def _checksum(number: int, text: str) -> int:
    return zlib.crc32(json.dumps([number, text]).encode())
