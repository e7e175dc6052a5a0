"""Reads the paragraphs of a .docx, a ZIP archive of XML (ECMA-376): in a process of its own, within bounds."""

import zipfile
from xml.parsers.expat import ParserCreate

from documents.isolated import run
from documents.unreadable import Reason, UnreadableDocument


class Docx:
    def __init__(self, path: str) -> None:
        self._paragraphs: list[str] = []
        self._open: list[list[str]] = []  # a text box stands in a paragraph, and has paragraphs of its own
        self._path: list[str] = []
        try:
            with zipfile.ZipFile(path) as archive:
                main = next(name for name in archive.namelist() if name.startswith("word/document"))  # or document2
                parser = ParserCreate(namespace_separator="}")
                parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
                parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = self._text, self._refuse
                with archive.open(main) as part:
                    parser.ParseFile(part)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  a hostile archive raises anything
            raise UnreadableDocument(Reason.DAMAGED, "The file is not a readable .docx.") from None
        self.page_count = len(self._paragraphs)
        self.text = self._paragraphs.__getitem__

    def _start(self, name: str, _attributes: object) -> None:
        self._path.append(name.rpartition("}")[2])
        mark = {"tab": "\t", "br": "\n", "cr": "\n"}.get(self._path[-1])
        if self._path[-1] == "p":
            self._open.append([])
        elif mark and self._open and self._path[-2] == "r":
            self._open[-1].append(mark)

    def _text(self, text: str) -> None:
        if self._open and self._path[-1] == "t":
            self._open[-1].append(text)

    def _end(self, _name: str) -> None:
        # A text box is there twice: the second one is for programs of long ago.
        if self._path.pop() == "p" and (text := "".join(self._open.pop()).strip("\n")) and "Fallback" not in self._path:
            self._paragraphs.append(text)

    def _refuse(self, *_declaration: object) -> None:
        raise ValueError("no .docx has a DTD, whose entities may expand without end")


if __name__ == "__main__":
    run(Docx)
