"""Reads .docx files put in the documents bucket, and reports each paragraph."""

import docx_reader

from document_processor import DocumentProcessor

handler = DocumentProcessor(docx_reader.__name__, unit="paragraphs")
