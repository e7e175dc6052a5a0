"""Live progress of document processing: browsers watch documents through `progress`, and workers report to it."""

from typing import Any

import pulumi

from infra.document_pipeline import DocumentPipeline
from infra.document_progress import DocumentProgress
from infra.document_results import DocumentResults
from infra.document_uploads import DocumentUploads
from infra.monitoring import Monitoring
from infra.site import Site
from infra.stack_config import StackConfig
from infra.user_pool import UserPool

config = StackConfig.load()

# Signs people in, where no other issuer does.
users = UserPool("users", config.user_pool) if config.user_pool else None

# The table, the WebSocket API and its routes, who may connect, who is told, and the watchdog.
progress = DocumentProgress("progress", {**config.progress, **users.tokens} if users else config.progress)

# The example worker: a bucket whose PDFs are read page by page, and whatever else documentKinds names.
documents = None
if config.document_pipeline:
    documents = DocumentPipeline("documents", config.document_pipeline, progress=progress)

# Where a page gets a form to upload with, behind the same authorization.
uploads = None
if documents and config.has_uploads:
    uploads = DocumentUploads("uploads", config.document_uploads(documents, progress))

# Where an owner gets a link to what a document came to.
results = None
if documents and config.has_results:
    results = DocumentResults("document-results", config.document_results(documents.bucket, progress))

# The page itself, hosted.
site = None
if config.site:
    sign_in = users.sign_in if users else config.sign_in
    site = Site("site", config.site, progress=progress, uploads=uploads, results=results, sign_in=sign_in)

# Its alarms, its dashboard and the queries of its logs.
monitoring = Monitoring(
    "monitoring",
    config.monitoring,
    progress=progress,
    workers=documents.processors if documents else [],
    others=[
        each
        for each in (
            uploads and uploads.presigner,
            results and results.function,
            progress.document_status,
            progress.end_events,
        )
        if each
    ],
    dead_letters=documents.failures.name if documents else None,
)

outputs: dict[str, pulumi.Output[Any]] = {
    "websocketUrl": progress.url,
    "callbackUrl": progress.callback_url,
    "apiId": progress.api_id,
    "stageName": progress.stage_name,
    "tableName": progress.table_name,
    "connectionHandlerName": progress.connection_handler_name,
    "workerEnvironment": progress.worker_environment,
    "workerPolicy": progress.worker_policy,
    "functionNames": monitoring.function_names,
}
if documents:
    outputs |= {"documentsBucket": documents.bucket_name, "documentProcessorName": documents.processor_name}
    outputs |= {"documentMediaTypes": pulumi.Output.from_input(documents.media_types)}
if progress.documents_url:
    outputs |= {"documentsUrl": progress.documents_url}
if uploads:
    outputs |= {"uploadUrl": uploads.url}
if results:
    outputs |= {"resultsUrl": results.url}
if progress.domain_target:
    outputs |= {"domainTarget": progress.domain_target}
if progress.documents_domain_target:
    outputs |= {"documentsDomainTarget": progress.documents_domain_target}
if site:
    outputs |= {"siteUrl": site.url, "siteTarget": site.target}
if monitoring.dashboard_name:
    outputs |= {"dashboardName": monitoring.dashboard_name}
if users:
    outputs |= {
        "userPoolId": users.pool_id,
        "userPoolClientId": users.client_id,
        "userPoolDomainUrl": users.domain_url,
    }
for name, value in outputs.items():
    pulumi.export(name, value)
