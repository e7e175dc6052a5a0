"""A program of one's own: browsers watch invoices while its own worker reads them."""

import pulumi
from docprogress_infra import DocumentProgress
from infra.invoice_reader import InvoiceReader

# Leave out `disposable` where this is not for trying out: plans then refuse to delete the table and the URL.
progress = DocumentProgress("progress", {"allowed_origins": ["https://invoices.example.com"], "disposable": True})

reader = InvoiceReader("invoice-reader", environment=progress.worker_environment)
progress.grant_worker(reader.role)

pulumi.export("url", progress.url)
pulumi.export("tableName", progress.table_name)
pulumi.export("invoiceReaderName", reader.function_name)
