"""Reads a document's pages: names it, reads it in a process of its own, and writes its text within bounds."""
